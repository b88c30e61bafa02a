"""Settings of the assistant: the model that reviews and discusses changesets, at any OpenAI-compatible endpoint."""

from __future__ import annotations

from enum import StrEnum
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings


class OutputLimitField(StrEnum):
    """What an endpoint calls the limit of an answer's length."""

    MAX_TOKENS = "max_tokens"
    MAX_COMPLETION_TOKENS = "max_completion_tokens"


class AssistantSettings(BaseSettings):
    """Whom the assistant asks, and how much (`spec.md` 8)."""

    ai_base_url: str | None = Field(
        default=None,
        description="Base URL of an OpenAI-compatible endpoint, as `https://models.example.com/v1`: diffs of changesets are sent"
        " there. Unset: `analyze` answers from built-in rules, and `chat` is unavailable.",
    )
    ai_model: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        validate_default=True,
        description="Name of the model at that endpoint; `analyze` calls its provider so. Goes with CONMAN_AI_BASE_URL.",
    )
    ai_api_key: SecretStr | None = Field(default=None, description="Key of the endpoint. Unset: none is sent.")
    ai_timeout_seconds: float = Field(
        default=60.0,
        ge=0.1,
        le=600,
        description="How long a request waits for the endpoint in all, seconds; then it is answered 502.",
    )
    ai_max_input_bytes: int = Field(
        default=200_000,
        ge=2_000,
        le=10_000_000,
        description="How much of a changeset's diff is sent, bytes; the rest is left out, and the answer says so.",
    )
    ai_max_output_tokens: int = Field(
        default=4_000,
        ge=64,
        le=200_000,
        description="How long an answer may be, tokens; the endpoint is told, and a longer one is cut.",
    )
    ai_output_limit_field: OutputLimitField = Field(
        default=OutputLimitField.MAX_TOKENS,
        description="What the endpoint calls the limit of an answer: `max_tokens`, or `max_completion_tokens` (reasoning models"
        " of OpenAI refuse the former).",
    )

    @field_validator("ai_base_url")
    @classmethod
    def _is_an_endpoint(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or not (value.isascii() and value.isprintable()):
            raise ValueError("needs to be an http:// or https:// URL in ASCII")
        if " " in value or parts.query or parts.fragment or parts.username is not None:
            raise ValueError("needs to be without spaces, query, fragment and user; the key goes to CONMAN_AI_API_KEY")
        return value.rstrip("/")

    @field_validator("ai_model")
    @classmethod
    def _model_and_endpoint_go_together(cls, value: str | None, info: ValidationInfo) -> str | None:
        if (value is None) != (info.data.get("ai_base_url") is None):
            raise ValueError("CONMAN_AI_BASE_URL and CONMAN_AI_MODEL: give both or neither")
        return value

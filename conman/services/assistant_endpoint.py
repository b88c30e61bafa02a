"""One question to an OpenAI-compatible endpoint, and its answer, whatever the endpoint does (`spec.md` 8).

Streams are asked for, so that an answer that is too long is cut while it comes; an endpoint that answers in one piece is taken as
well. Nothing is asked twice by itself: whoever waits can ask again, and a model that is busy is not helped by repeats. Redirects
are not followed: the diffs go to the endpoint that was configured and nowhere else. What the client would take from the
environment (`OPENAI_*`: keys and ids of somebody's account) is not sent there either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import BaseModel, Field, SecretStr, ValidationError

from conman.config import Settings
from conman.domain.errors import ErrorCode, Unavailable
from conman.settings.assistant import OutputLimitField

if TYPE_CHECKING:
    from openai import AsyncOpenAI, AsyncStream
    from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 10.0
"""How long a connection may take; the time in all is the setting's."""
CHARACTERS_PER_TOKEN = 8
"""An answer is cut at so many characters for each token that it may have: more than a model writes with one."""
MOST_OVERHEAD_BYTES = 64 * 1024
"""What an answer in one piece may have around its text, bytes."""


@dataclass(frozen=True, slots=True)
class Message:
    """A part of a conversation; `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model wrote; `cut`: it was going to write more."""

    text: str
    cut: bool = False


class _Said(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Said
    finish_reason: str | None = None


class _Completion(BaseModel):
    """What is read of an answer in one piece."""

    choices: list[_Choice] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask."""

    base_url: str
    model: str
    api_key: SecretStr | None
    timeout_seconds: float
    max_output_tokens: int
    limit_field: OutputLimitField

    @property
    def longest(self) -> int:
        """Where an answer is cut, characters."""
        return self.max_output_tokens * CHARACTERS_PER_TOKEN

    @asynccontextmanager
    async def conversation(self) -> AsyncIterator[Conversation]:
        """Ask one or more questions within the time of one request. Raises `ai_error` when it is over."""
        # Importing it takes a second, which neither a worker nor a command should wait for.
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        patience = Timeout(self.timeout_seconds, connect=min(CONNECT_SECONDS, self.timeout_seconds))
        http = DefaultAsyncHttpxClient(follow_redirects=False, timeout=patience)
        client = AsyncOpenAI(
            api_key="" if self.api_key is None else self.api_key.get_secret_value(),
            base_url=self.base_url,
            max_retries=0,
            timeout=patience,
            http_client=http,
        )
        async with client:
            try:
                async with asyncio.timeout(self.timeout_seconds):
                    yield Conversation(self, client)
            except TimeoutError as error:
                raise self._too_slow() from error

    def _too_slow(self) -> Unavailable:
        log.warning("assistant_too_slow", base_url=self.base_url, model=self.model, seconds=self.timeout_seconds)
        return ai_error(
            f"The assistant did not answer within {self.timeout_seconds:g} s: try again, ask about fewer files, or let an"
            " operator raise CONMAN_AI_TIMEOUT_SECONDS."
        )


@dataclass(frozen=True, slots=True)
class Conversation:
    """An open connection to the endpoint."""

    endpoint: Endpoint
    client: AsyncOpenAI

    async def ask(self, messages: Sequence[Message]) -> Answer:
        """The model's answer. Raises `ai_error`, whose message has nothing of the endpoint's own but a status."""
        from httpx2 import HTTPError, TimeoutException
        from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

        try:
            return await self._ask(messages)
        except (APITimeoutError, TimeoutException) as error:
            raise TimeoutError from error
        except APIStatusError as error:
            raise self._failed(f"answered {error.status_code}", _remedy(error.status_code)) from error
        except (APIConnectionError, HTTPError) as error:
            raise self._failed("can't be reached, or broke off", "check CONMAN_AI_BASE_URL, and that it is up") from error
        except APIError as error:  # what a stream reports in its middle
            raise self._failed("broke off with an error of its own", "try again") from error
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            # What is no JSON, or has another shape than the client and this module rely on.
            raise self._failed("answered something that is no chat completion", "check CONMAN_AI_BASE_URL") from error

    def _failed(self, what: str, remedy: str) -> Unavailable:
        log.warning("assistant_failed", base_url=self.endpoint.base_url, model=self.endpoint.model, what=what)
        return ai_error(f"The assistant's endpoint {what}: {remedy}.")

    async def _ask(self, messages: Sequence[Message]) -> Answer:
        from openai import Omit

        nothing_ambient: dict[str, Any] = {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
        if self.endpoint.api_key is None:
            nothing_ambient["Authorization"] = Omit()
        said: list[ChatCompletionMessageParam] = [
            {"role": message.role, "content": message.content}  # pyright: ignore[reportAssignmentType]
            for message in messages
        ]
        asked = self.client.chat.completions.with_streaming_response.create(
            model=self.endpoint.model,
            messages=said,
            stream=True,
            extra_headers=nothing_ambient,
            extra_body={self.endpoint.limit_field.value: self.endpoint.max_output_tokens},
        )
        async with asked as response:
            if response.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream":
                stream: AsyncStream[ChatCompletionChunk] = await response.parse()
                return _clean(await self._streamed(stream))
            return _clean(await self._whole(response.iter_bytes()))

    async def _streamed(self, stream: AsyncStream[ChatCompletionChunk]) -> Answer:
        parts: list[str] = []
        size = 0
        finished: str | None = None
        async with stream:
            async for chunk in stream:
                if not chunk.choices:
                    continue  # how much was used, or a sign of life
                choice = chunk.choices[0]
                finished = choice.finish_reason or finished
                text = choice.delta.content
                if text:
                    parts.append(text)
                    size += len(text)
                if size > self.endpoint.longest:
                    return self._answer("".join(parts), "length")
        return self._answer("".join(parts), finished)

    async def _whole(self, pieces: AsyncIterator[bytes]) -> Answer:
        most = 4 * self.endpoint.longest + MOST_OVERHEAD_BYTES
        data = bytearray()
        async for piece in pieces:
            data += piece
            if len(data) > most:
                raise self._failed(f"answered more than {most} bytes", "use another model, or raise CONMAN_AI_MAX_OUTPUT_TOKENS")
        try:
            choice = _Completion.model_validate_json(bytes(data)).choices[0]
        except ValidationError as error:
            raise ValueError("no chat completion") from error
        return self._answer(choice.message.content or "", choice.finish_reason)

    def _answer(self, text: str, finished: str | None) -> Answer:
        if not text.strip():
            why = "it was filtered" if finished == "content_filter" else "nothing came"
            raise self._failed(f"gave no answer ({why})", "ask in other words, or use another model")
        return Answer(text[: self.endpoint.longest], cut=finished == "length" or len(text) > self.endpoint.longest)


def endpoint_of(settings: Settings) -> Endpoint | None:
    """The configured endpoint."""
    if settings.ai_base_url is None or settings.ai_model is None:
        return None
    return Endpoint(
        base_url=settings.ai_base_url,
        model=settings.ai_model,
        api_key=settings.ai_api_key,
        timeout_seconds=settings.ai_timeout_seconds,
        max_output_tokens=settings.ai_max_output_tokens,
        limit_field=settings.ai_output_limit_field,
    )


def ai_error(message: str) -> Unavailable:
    """The refusal for whatever went wrong at the endpoint."""
    return Unavailable(ErrorCode.AI_ERROR, message)


def _clean(answer: Answer) -> Answer:
    """The answer as text that any reply can hold: halves of surrogate pairs become question marks."""
    return Answer(answer.text.encode(errors="replace").decode(), answer.cut)


def _remedy(status: int) -> str:
    match status:
        case 401 | 403:
            return "check CONMAN_AI_API_KEY"
        case 404:
            return "check CONMAN_AI_BASE_URL and CONMAN_AI_MODEL"
        case 413:
            return "ask about fewer files, or lower CONMAN_AI_MAX_INPUT_BYTES"
        case 400 | 422:
            return "check CONMAN_AI_MODEL, CONMAN_AI_OUTPUT_LIMIT_FIELD, and that CONMAN_AI_MAX_INPUT_BYTES fits into its context"
        case 429:
            return "it is asked too much, or the account is used up; try again later"
        case _ if 300 <= status < 400:
            return "redirects are not followed; set CONMAN_AI_BASE_URL to where it is"
        case _:
            return "try again later"

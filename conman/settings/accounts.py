"""Settings of accounts: sessions, the first platform admin, who may create apps."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings


class AccountSettings(BaseSettings):
    """People and their sessions (`spec.md` 5)."""

    session_hours: int = Field(default=24, ge=1, le=720, description="Life of a login session, hours.")

    admin_email: str | None = Field(default=None, description="Email of the platform admin made at first start.")
    admin_password: SecretStr | None = Field(default=None, description="Password of the platform admin made at first start.")
    app_creation: Annotated[str, Field(pattern="^(platform_admin|any_user)$")] = Field(
        default="platform_admin", description="Who may create apps: `platform_admin` or `any_user`."
    )

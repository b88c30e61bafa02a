"""Settings of outgoing mail: links in it, and the SMTP server or the outbox folder that it goes to."""

from __future__ import annotations

from email.errors import HeaderParseError
from email.headerregistry import Address
from email.utils import getaddresses
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings

from conman.domain.addresses import is_loopback


class SmtpTls(StrEnum):
    """How the connection to the SMTP server is protected."""

    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


_USUAL_PORTS = {SmtpTls.NONE: 25, SmtpTls.STARTTLS: 587, SmtpTls.TLS: 465}


class MailSettings(BaseSettings):
    """How mails leave (`spec.md` 14)."""

    public_url: str | None = Field(
        default=None,
        description="URL under which people reach Conman, the base of every link in a mail. Unset: the API's own address.",
    )
    mail_from: str | None = Field(
        default=None,
        description="Sender of every mail, as `conman@example.com` or `Conman <conman@example.com>`. Unset: conman@ the host "
        "of the public URL.",
    )
    mail_concurrency: int = Field(default=4, ge=1, le=100, description="Mails that one worker sends at once.")
    mail_keep_days: int = Field(
        default=90,
        ge=0,
        le=36_500,
        description="How long it is known which mail went to whom and how it ended, days; what is on its way stays. 0: for ever.",
    )

    smtp_host: str | None = Field(
        default=None,
        min_length=1,
        pattern=r"^\S+$",
        description="SMTP server that mails go to. Unset: they land as .eml files in DATA/outbox and reach nobody.",
    )
    smtp_port: int | None = Field(
        default=None, ge=1, le=65535, description="Port of the SMTP server. Unset: 465 for `tls`, 587 for `starttls`, else 25."
    )
    smtp_tls: SmtpTls | None = Field(
        default=None,
        description="`tls` from the first byte, `starttls` before anything is said (never without it), or `none`. Unset: `none` "
        "for a server on this machine, else `starttls`.",
    )
    smtp_ca_file: Path | None = Field(
        default=None,
        description="PEM file with the authorities that vouch for the SMTP server. Unset: the system's.",
    )
    smtp_password: SecretStr | None = Field(default=None, description="Password at the SMTP server.")
    smtp_username: str | None = Field(
        default=None, validate_default=True, description="Account at the SMTP server. Unset: Conman does not log in there."
    )
    smtp_timeout_seconds: float = Field(
        default=20.0,
        gt=0,
        le=60,
        description="How long each step of a conversation with the SMTP server may take, seconds; then the mail is tried again.",
    )

    @field_validator("public_url")
    @classmethod
    def _is_a_base(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        plain = value.isascii() and value.isprintable() and not any(sign in value for sign in " \"'<>\\")
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
            raise ValueError("needs to be an http:// or https:// URL in ASCII")
        if parts.query or parts.fragment or parts.username is not None:
            raise ValueError("needs to be without query, fragment and user")
        return value.rstrip("/")

    @field_validator("mail_from")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        wrong = ValueError("needs to be one address, such as Conman <conman@example.com>")
        try:
            ((name, spec),) = getaddresses([value])
            address = Address(display_name=name, addr_spec=spec)
        except (ValueError, HeaderParseError, IndexError) as error:
            raise wrong from error
        if not address.username or not address.domain or not spec.isascii() or not value.isprintable():
            raise wrong
        return value

    @field_validator("smtp_username")
    @classmethod
    def _go_together(cls, value: str | None, info: ValidationInfo) -> str | None:
        if (value is None) != (info.data.get("smtp_password") is None):
            raise ValueError("CONMAN_SMTP_USERNAME and CONMAN_SMTP_PASSWORD: give both or neither")
        return value

    @property
    def smtp_protection(self) -> SmtpTls:
        """The protection in effect: never plain text to another machine unless it was asked for."""
        if self.smtp_tls is not None:
            return self.smtp_tls
        return SmtpTls.NONE if self.smtp_host is not None and is_loopback(self.smtp_host) else SmtpTls.STARTTLS

    @property
    def smtp_port_in_effect(self) -> int:
        """The port, the usual one of the protection where none was given."""
        return self.smtp_port or _USUAL_PORTS[self.smtp_protection]

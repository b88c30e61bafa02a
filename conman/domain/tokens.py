"""Tokens that go out in mails and links: made again for a retry, kept only as hashes (`spec.md` 5 and 13).

A token is the base64url HMAC-SHA256, under a key derived from the server's secret, of purpose, record id and token number; a
resend raises the number, which voids the token before it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from enum import StrEnum

_DERIVED_FOR = b"conman mail tokens v1"


class TokenPurpose(StrEnum):
    """What a token is good for; one for another purpose never fits."""

    INVITE = "invite"
    PASSWORD_RESET = "password_reset"
    TEMP_ENV_LINK = "temp_env_link"


def make_token(secret: str, purpose: TokenPurpose, record_id: str, number: int) -> str:
    """The token, 43 characters of `[A-Za-z0-9_-]`; the same again for the same arguments."""
    key = hmac.digest(secret.encode(), _DERIVED_FOR, hashlib.sha256)
    message = "\0".join((purpose.value, record_id, str(number))).encode()
    return base64.urlsafe_b64encode(hmac.digest(key, message, hashlib.sha256)).rstrip(b"=").decode()


def token_hash(token: str) -> str:
    """What is kept of a token, and what it is looked up by: its SHA-256, hex."""
    return hashlib.sha256(token.encode()).hexdigest()

"""How a webhook's messages are signed: Standard Webhooks 1.0.0, symmetric signatures (`v1`, HMAC-SHA256).

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import timedelta

PREFIX = "whsec_"
"""Begins a secret that is Base64 of random bytes. Any other secret is a key as it stands, by its UTF-8 bytes."""

LEAST_BYTES, MOST_BYTES = 24, 64
"""How long the random bytes of a prefixed secret are."""

BOTH_SIGN = timedelta(hours=24)
"""How long the secret that was replaced still signs beside the new one, so that a receiver can change over at its own time."""


def secret_problem(secret: str) -> str | None:
    """What is wrong with a secret that somebody gives."""
    if not secret.startswith(PREFIX):
        return None
    try:
        size = len(base64.b64decode(secret.removeprefix(PREFIX), validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if LEAST_BYTES <= size <= MOST_BYTES:
        return None
    return f"begins with {PREFIX}: then Base64 of {LEAST_BYTES} to {MOST_BYTES} random bytes follows (openssl rand -base64 32)"


def signing_key(secret: str) -> bytes:
    """The key of HMAC that a secret stands for. One that was kept before prefixes were checked is a key as it stands."""
    if secret.startswith(PREFIX) and secret_problem(secret) is None:
        return base64.b64decode(secret.removeprefix(PREFIX))
    return secret.encode()


def signed_headers(message_id: str, timestamp: int, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """The headers that prove a message: its id, the time of the attempt in seconds since 1970, and a signature by each secret."""
    content = f"{message_id}.{timestamp}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(signing_key(secret), content, hashlib.sha256)).decode() for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }

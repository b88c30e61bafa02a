"""Identifiers: UUIDv7 as text (`api.md` 1, RFC 9562 5.7).

Times and randomness are passed in, so that a workflow or a second run of the same step makes the same ids
(`durability.md` 3). Ids sort by their time, which lets lists page by id.
"""

from __future__ import annotations

import hashlib
import re
import secrets

MAX_TIME_MS = 2**48 - 1
"""The last time that fits, milliseconds since 1970."""

_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def uuid7(at_ms: int, random_bits: bytes) -> str:
    """The UUIDv7 of a time and at least 10 bytes, of which 74 bits are used.

    `at_ms` is in milliseconds since 1970 UTC. Raises `ValueError` for a time outside 48 bits or
    too few bytes.
    """
    if not 0 <= at_ms <= MAX_TIME_MS:
        raise ValueError(f"at_ms is {at_ms}, not within 0 and {MAX_TIME_MS}")
    if len(random_bits) < 10:
        raise ValueError(f"random_bits has {len(random_bits)} bytes, needs 10 or more")
    noise = int.from_bytes(random_bits[:10], "big")
    first_12, last_62 = noise >> 68, noise & (2**62 - 1)
    value = at_ms << 80 | 0x7 << 76 | first_12 << 64 | 0b10 << 62 | last_62
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def random_uuid7(at_ms: int) -> str:
    """A fresh UUIDv7 of a time in milliseconds since 1970 UTC. Not for workflows: two calls differ.

    Raises `ValueError` for a time outside 48 bits.
    """
    return uuid7(at_ms, secrets.token_bytes(10))


MAX_ORDER = 2**12 - 1
"""How many ids of one millisecond can be kept in order."""


def derived_uuid7(at_ms: int, *parts: str, order: int | None = None) -> str:
    """The UUIDv7 that belongs to a time and some parts: the same again for the same ones (`durability.md` 3).

    The bits beside the time are a SHA-256 hash of the parts, each with its length, so that `("a", "bc")` and
    `("ab", "c")` differ. With `order`, the ids of one time sort by it: it takes the first 12 of those bits, and what is
    beyond `MAX_ORDER` shares the last place. Raises `ValueError` without any part, or for a time outside 48 bits.
    """
    if not parts:
        raise ValueError("an id is derived from at least one part")
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    bits = digest.digest()
    if order is not None:
        place = min(order, MAX_ORDER)
        bits = (place << 4 | bits[1] & 0xF).to_bytes(2, "big") + bits[2:]
    return uuid7(at_ms, bits)


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID of any version in canonical form: lower case, with hyphens."""
    return _CANONICAL.fullmatch(text) is not None


def time_of(uuid: str) -> int:
    """The time in a UUIDv7, milliseconds since 1970 UTC. Raises `ValueError` for what is not a UUIDv7."""
    if not is_uuid(uuid) or uuid[14] != "7":
        raise ValueError(f"{uuid!r} is not a UUIDv7")
    return int(uuid[:8] + uuid[9:13], 16)


def first_id_of(at_ms: int) -> str:
    """A text that sorts after the ids of all earlier times and before all others.

    Raises `ValueError` for a time outside 48 bits.
    """
    return uuid7(at_ms, bytes(10))

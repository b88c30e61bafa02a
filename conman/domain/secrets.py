"""Secrets as everybody may see them: a mask, and the id of the encrypted value (`spec.md` 6)."""

from __future__ import annotations

from conman.domain.decision import Model

HIDDEN = "****"
"""Stands for what a mask hides, however long that is."""

_ALL_HIDDEN_UP_TO = 4
_ONLY_THE_END_UP_TO = 8
_SHOWN = 4


def mask(text: str) -> str:
    """How a secret is shown: up to 8 characters only the last 4 (up to 4: none), of a longer one the first 4 and the last 4."""
    if len(text) <= _ALL_HIDDEN_UP_TO:
        return HIDDEN
    if len(text) <= _ONLY_THE_END_UP_TO:
        return HIDDEN + text[-_SHOWN:]
    return text[:_SHOWN] + HIDDEN + text[-_SHOWN:]


class SecretRef(Model):
    """What a profile's revision keeps of a secret: which encrypted value it is, and how that is shown.

    The value itself stands apart, so that revisions stay as they were written while a rotation re-encrypts what they refer to.
    """

    value_id: str
    mask: str

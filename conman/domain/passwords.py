"""What a password must be (`spec.md` 5)."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

SHORTEST: Final = 12
"""Characters."""
LONGEST: Final = 128
"""Characters."""


def password_problem(password: str, email: str, commonest: AbstractSet[str]) -> str | None:
    """Why the account of `email` can't have this password, None when it can: 12 to 128 characters, not the email, not one of the
    commonest. `commonest` are case-folded, and case is no difference."""
    if not SHORTEST <= len(password) <= LONGEST:
        return f"needs {SHORTEST} to {LONGEST} characters"
    folded = password.casefold()
    if folded.strip() == email.casefold():
        return "must not be the email"
    if folded in commonest:
        return "is one of the commonest passwords, which are tried first: choose another"
    return None

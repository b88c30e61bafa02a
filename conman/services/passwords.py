"""Argon2id, off the event loop in threads of its own, and the rule for new passwords (`spec.md` 5)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.resources import files
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from conman.domain.errors import invalid
from conman.domain.passwords import password_problem

_ResultT = TypeVar("_ResultT")

HASHER = PasswordHasher(memory_cost=19456, time_cost=2, parallelism=1)

NOBODYS = "$argon2id$v=19$m=19456,t=2,p=1$fHlSPuSRrwqRkRZAbHDJUA$I6C2Trca4dOk1UyZC+LCcx5PUml4CMMioxQkCWVrnII"
"""The hash of bytes that nobody knows: verified where there is no account or it has no password, so that this takes alike."""

_THREADS = max(1, min(4, (os.cpu_count() or 2) // 2))
_POOL = ThreadPoolExecutor(_THREADS, thread_name_prefix="argon2")
"""Its own and small: many logins at once wait for one another here, and for nobody else's threads or cores."""


async def _in_pool(work: Callable[[], _ResultT]) -> _ResultT:
    return await asyncio.get_running_loop().run_in_executor(_POOL, work)


@cache
def commonest() -> frozenset[str]:
    """The passwords that nobody may have, case-folded: those long enough to pass the rule of length."""
    text = files("conman.services").joinpath("common_passwords.txt").read_text(encoding="utf-8")
    return frozenset(line.casefold() for line in text.splitlines() if line and not line.startswith("#"))


def check_password(password: str, email: str, *, field: str = "password") -> None:
    """The rule of `spec.md` 5. Raises `validation_error` about `field`."""
    problem = password_problem(password, email, commonest())
    if problem is not None:
        raise invalid(field, problem)


async def hash_password(password: str) -> str:
    """Argon2id of a password, with a salt of its own."""
    return await _in_pool(lambda: HASHER.hash(password))


async def password_matches(stored: str | None, password: str) -> bool:
    """Whether it is the password; one verification, with and without a stored hash."""

    def verify() -> bool:
        try:
            return HASHER.verify(stored or NOBODYS, password)
        except (VerificationError, InvalidHashError):
            return False

    return await _in_pool(verify) and stored is not None

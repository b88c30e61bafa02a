"""Results of suites that passed, kept to answer for the same input (`domain/suite_result.py`).

`suite_results` {_id: key of the input, job_id, attempt, ended_at, report, forget_at}: nothing in it holds or tells a value
of a profile. Written after the suite has ended and before its verdict is told, each time as a whole: a repeat changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG

from conman.domain.suite_result import SuiteResult
from conman.domain.times import later
from conman.store.database import Database

COLLECTION = "suite_results"
_NO_FILE = bytes(32)


async def find(db: Database, key: str) -> SuiteResult | None:
    """The result that is kept for an input; whether it may be reused is for the caller to ask."""
    kept = await db[COLLECTION].find_one({"_id": key})
    return None if kept is None else SuiteResult.model_validate(kept)


async def keep(db: Database, key: str, result: SuiteResult, hours: int) -> None:
    """Keep a result for as long as it may be reused, in place of an older one for the same input."""
    forget_at = later(result.ended_at, timedelta(hours=hours))
    await db[COLLECTION].update_one({"_id": key}, {"$set": {**result.model_dump(), "forget_at": forget_at}}, upsert=True)


async def void(db: Database, key: str) -> SuiteResult | None:
    """Forget the result of an input on which the suite has failed now; the result, if there was one."""
    kept = await db[COLLECTION].find_one_and_delete({"_id": key})
    return None if kept is None else SuiteResult.model_validate(kept)


def program_digest(version: str, argv: Sequence[str], environment: Mapping[str, str], more: Sequence[Path] = ()) -> str:
    """What tells a command from one that was changed in place: the content of its program and of every file that a word of it
    names by an absolute path, with what the operator calls its version.

    A program of the checkout is part of the tree. It reads files: not for the event loop.
    """
    digest = hashlib.sha256(version.encode())
    for path in (*_files_of(argv, environment), *more):
        digest.update(_content(path))
    return digest.hexdigest()


def _files_of(argv: Sequence[str], environment: Mapping[str, str]) -> list[Path]:
    named = [Path(word) for word in argv if word.startswith("/")]
    searched = None if "/" in argv[0] else shutil.which(argv[0], path=environment.get("PATH", os.environ.get("PATH")))
    return named if searched is None else [Path(searched), *named]


def _content(path: Path) -> bytes:
    """A digest of a file's content; one for all paths at which there is no file to be read."""
    try:
        about = path.stat()
        if not S_ISREG(about.st_mode):
            return _NO_FILE
        return _digest_of_file(path, about.st_ino, about.st_mtime_ns, about.st_size)
    except OSError:
        return _NO_FILE


@lru_cache(maxsize=4096)
def _digest_of_file(path: Path, _inode: int, _changed_ns: int, _size: int) -> bytes:
    """Read once, and again when the file has changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()

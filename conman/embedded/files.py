"""Small files below DATA that hold secrets or tell other processes something: private, and never seen half-written."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

from conman.embedded.errors import EmbeddedError


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read (0600), under another name first and then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


class DataLock:
    """One stack per data folder, by a lock that ends with its process."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._path = data / "run" / "stack.lock"
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this very object has the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take it. Raises `EmbeddedError` if another process has it, naming that."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise EmbeddedError(
                f"the data folder {self._data} is in use by another conman (process {holder}): stop that, or take another --data"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Let it go; does nothing when it isn't held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @staticmethod
    def is_held(data: Path) -> bool:
        """Whether a live process has the lock of this data folder."""
        try:
            descriptor = os.open(data / "run" / "stack.lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

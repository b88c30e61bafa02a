"""Ports for local servers: the usual ones if they are free, no two stacks on the same."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path

from conman.embedded.errors import EmbeddedError

_LOWEST, _HIGHEST = 15000, 32000
"""Below the range that outgoing connections take theirs from: a server that is restarting finds its port still free,
and a client that tries to reach it meanwhile can't end up connected to itself."""
_TRIES = 500


class PortLease:
    """A port that no other stack of this user takes while the lease is held, be the server up or restarting."""

    def __init__(self, port: int, descriptor: int) -> None:
        self.port = port
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let others have it; a lease also ends with its process."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)  # binding alone passes beside a listener on all addresses
        except OSError:
            return False
    return True


def lease(preferred: Iterable[int | None], host: str = "127.0.0.1") -> PortLease:
    """The first of the preferred ports that is free, else any free one. Raises `EmbeddedError` if there is none."""
    for port in preferred:
        taken = _try(port, host) if port else None
        if taken is not None:
            return taken
    for _ in range(_TRIES):
        taken = _try(random.randint(_LOWEST, _HIGHEST), host)
        if taken is not None:
            return taken
    raise EmbeddedError(f"no free port on {host} between {_LOWEST} and {_HIGHEST}")


def _try(port: int, host: str) -> PortLease | None:
    folder = Path(tempfile.gettempdir()) / f"conman-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not is_free(port, host):
        os.close(descriptor)
        return None
    return PortLease(port, descriptor)

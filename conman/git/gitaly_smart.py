"""Git's smart protocol (version 0, stateless) carried over Gitaly's SmartHTTPService: look at refs, fetch, push.

The protocol's pieces (pkt-lines, advertisements, status reports) are dulwich's; what carries them is ours, since dulwich
itself is synchronous. Packs pass through in chunks: none is ever whole in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from dulwich.client import ReportStatusParser, read_pkt_refs_v1
from dulwich.errors import GitProtocolError, SendPackError
from dulwich.protocol import PktLineParser, pkt_line

from conman import __version__
from conman.git.adapter import GitError, RefUpdate, RepositoryExists, RepositoryMissing
from conman.git.checks import shown
from conman.git.gitaly_channel import GitalyChannel, GitalyError, Kind, Landed
from conman.git.proto import gitaly_pb2

CHUNK_BYTES = 128 * 1024
"""Of a pack, per message; servers take at most 4 MiB."""
MAX_HAVES = 512
"""Commits that are named to the server as already here: enough for it to find what is common, and a request of 25 KB."""
_ZERO = "0" * 40
_AGENT = f"agent=conman/{__version__}".encode()
# What the caller moves has been compared; git's own defaults are for people who push by hand.
_SETTINGS = (
    "uploadpack.allowAnySHA1InWant=true",
    "receive.denyDeletes=false",
    "receive.denyNonFastForwards=false",
    "receive.denyDeleteCurrent=ignore",
)
_NOT_OUR_REF = "not our ref"
_DATA, _FATAL = b"\x01", b"\x03"
"""The bands that carry what was asked for, and the reason why it ends here."""


class NotOurRef(GitError):
    """The server does not have an object that was asked for, or does not give it out."""

    def __init__(self, operation: str) -> None:
        super().__init__(operation, "the server does not have what was asked for", safe_to_repeat=False)


@dataclass(frozen=True, slots=True)
class Advertisement:
    """What a server says of a repository: its refs (full name → sha, not peeled) and what it can do."""

    refs: dict[str, str]
    capabilities: frozenset[bytes]


class SmartClient:
    """The smart protocol's three exchanges with one server."""

    def __init__(self, channel: GitalyChannel) -> None:
        self._channel = channel
        self._takes_settings: bool | None = None
        """Whether the server lets a call set git's settings: gitaly-rs does, and needs it; Conman's own does not."""

    async def refs(self, operation: str, repo: str) -> Advertisement:
        """The refs as they are now, to fetch. Raises `RepositoryMissing`."""
        return await self._advertisement(operation, repo, self._channel.stubs.smart_http.InfoRefsUploadPack)

    async def refs_to_push(self, operation: str, repo: str) -> Advertisement:
        """The refs as they are now, to push. Raises `RepositoryMissing`."""
        return await self._advertisement(operation, repo, self._channel.stubs.smart_http.InfoRefsReceivePack)

    async def fetch(
        self,
        operation: str,
        repo: str,
        wants: Sequence[str],
        haves: Sequence[str],
        sink: Callable[[bytes], Awaitable[None]],
    ) -> bool:
        """Pass a pack (thin when there are `haves`) with everything that `wants` reach and `haves` do not to `sink`.

        Returns whether the server knows any of `haves`. Raises `NotOurRef`.
        """
        answer = _FetchAnswer(operation)
        lines = [f"want {wants[0]} ".encode() + b"side-band-64k thin-pack ofs-delta no-progress " + _AGENT + b"\n"]
        lines += [f"want {sha}\n".encode() for sha in wants[1:]]
        body = b"".join(map(pkt_line, lines)) + b"0000"
        body += b"".join(pkt_line(f"have {sha}\n".encode()) for sha in haves[:MAX_HAVES]) + pkt_line(b"done\n")
        requests = self._requests(gitaly_pb2.PostUploadPackRequest, repo, _chunks(body))
        method = self._channel.stubs.smart_http.PostUploadPack
        try:
            async with self._channel.stream(operation, method, requests, kind=Kind.TRANSFER) as messages:
                async for message in messages:
                    answer.parse(message.data)
                    if answer.pack:
                        data, answer.pack = b"".join(answer.pack), []
                        await sink(data)
        except GitalyError as error:
            if _NOT_OUR_REF in error.details:
                raise NotOurRef(operation) from error
            raise
        if not answer.ended:
            raise GitalyError(operation, grpc.StatusCode.OK, "the pack is cut short")
        return answer.common

    async def push(
        self, operation: str, repo: str, updates: Sequence[RefUpdate], capabilities: frozenset[bytes], pack: Path | None
    ) -> dict[str, str | None]:
        """Compare and swap all refs or none; the refs with the server's reason against each, None for one that moved.

        `pack` holds the objects that the server lacks; None when only refs are deleted. Raises `GitalyError` (see
        `outcome_known`), and `GitError` when the server can't use the pack, which moves nothing.
        """
        if b"atomic" not in capabilities or b"report-status" not in capabilities:
            raise GitError(operation, "the server can't move refs together or report on it", safe_to_repeat=False)
        wanted = b"report-status atomic " + (b"side-band-64k " if b"side-band-64k" in capabilities else b"") + _AGENT
        lines = [f"{update.old or _ZERO} {update.new or _ZERO} {update.ref}".encode() for update in updates]
        lines[0] += b"\0" + wanted
        head = b"".join(map(pkt_line, lines)) + b"0000"
        method = self._channel.stubs.smart_http.PostReceivePack

        report = _PushAnswer(operation, banded=b"side-band-64k" in wanted)
        requests = self._requests(gitaly_pb2.PostReceivePackRequest, repo, _chunks(head, pack))
        async with self._channel.stream(operation, method, requests, kind=Kind.TRANSFER) as messages:
            async for message in messages:
                report.parse(message.data)
        return report.result()

    async def _advertisement(self, operation: str, repo: str, method: Any) -> Advertisement:
        async def once() -> Advertisement:
            settings = () if self._takes_settings is False else _SETTINGS
            request = gitaly_pb2.InfoRefsRequest(repository=self._channel.repository(repo), git_config_options=settings)
            async with self._channel.stream(operation, method, request, kind=Kind.LONG) as messages:
                data = b"".join([message.data async for message in messages])
            return _parsed_advertisement(operation, data)

        try:
            if self._takes_settings is None:
                try:
                    found = await self._channel.repeated(once, kind=Kind.LONG)
                    self._takes_settings = True
                    return found
                except GitalyError as error:
                    if error.code is not grpc.StatusCode.INVALID_ARGUMENT:
                        raise
                    self._takes_settings = False
            return await self._channel.repeated(once, kind=Kind.LONG)
        except GitalyError as error:
            # gitaly-rs answers INTERNAL with git's words when there is no repository, GitLab's NOT_FOUND.
            if error.code not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
                raise
            if await self.exists(operation, repo):
                raise
            raise RepositoryMissing(operation, repo) from error

    async def exists(self, operation: str, repo: str) -> bool:
        """Whether the server has the repository."""
        request = gitaly_pb2.RepositoryExistsRequest(repository=self._channel.repository(repo))
        reply = await self._channel.read(operation, self._channel.stubs.repository.RepositoryExists, request)
        return reply.exists

    async def create(self, operation: str, repo: str, default_branch: str) -> None:
        """Make a repository. Raises `RepositoryExists`."""
        # So that one that is there after an answer was lost can only be new.
        if await self.exists(operation, repo):
            raise RepositoryExists(operation, repo)
        request = gitaly_pb2.CreateRepositoryRequest(
            repository=self._channel.repository(repo), default_branch=default_branch.encode()
        )

        async def attempt() -> None:
            await self._channel.write(operation, self._channel.stubs.repository.CreateRepository, request)

        async def look() -> Landed[None] | None:
            return Landed(None) if await self.exists(operation, repo) else None

        try:
            await self._channel.settle(attempt, look)
        except GitalyError as error:
            if error.code is grpc.StatusCode.ALREADY_EXISTS:
                raise RepositoryExists(operation, repo) from error
            raise

    async def remove(self, operation: str, repo: str) -> None:
        """Remove a repository. Raises `RepositoryMissing`."""
        request = gitaly_pb2.RemoveRepositoryRequest(repository=self._channel.repository(repo))

        async def attempt() -> None:
            await self._channel.write(operation, self._channel.stubs.repository.RemoveRepository, request)

        async def look() -> Landed[None] | None:
            return None if await self.exists(operation, repo) else Landed(None)

        try:
            await self._channel.settle(attempt, look)
        except GitalyError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                raise RepositoryMissing(operation, repo) from error
            raise

    async def _requests(self, message: Any, repo: str, chunks: Iterable[bytes]) -> AsyncIterator[Any]:
        yield message(repository=self._channel.repository(repo), git_config_options=_SETTINGS if self._takes_settings else ())
        for chunk in chunks:
            yield message(data=chunk)


def _chunks(head: bytes, pack: Path | None = None) -> Iterable[bytes]:
    for start in range(0, len(head), CHUNK_BYTES):
        yield head[start : start + CHUNK_BYTES]
    if pack is not None:
        with pack.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


def _parsed_advertisement(operation: str, data: bytes) -> Advertisement:
    packets: list[bytes | None] = []
    parser = PktLineParser(packets.append)
    try:
        parser.parse(data)
        if packets and (packets[0] or b"").startswith(b"# service="):
            # GitLab's Gitaly opens with the line that HTTP has, and a flush; gitaly-rs leaves both out.
            del packets[:2]
        if parser.get_tail() or not packets or packets.pop() is not None:
            raise GitalyError(operation, grpc.StatusCode.OK, "the list of refs is cut short")
        refs, capabilities = read_pkt_refs_v1(packet for packet in packets if packet is not None)
    except (GitProtocolError, ValueError) as error:
        raise GitError(operation, f"the server's list of refs makes no sense: {error}", safe_to_repeat=True) from error
    found = {shown(name): sha.decode() for name, sha in refs.items() if name.startswith(b"refs/") and not name.endswith(b"^{}")}
    return Advertisement(dict(sorted(found.items())), frozenset(capabilities))


class _FetchAnswer:
    """The packets of an answer to a fetch: one ACK or NAK, then the pack in bands, then a flush."""

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._parser = PktLineParser(self._packet)
        self._in_pack = False
        self.common = False
        self.ended = False
        self.pack: list[bytes] = []

    def parse(self, data: bytes) -> None:
        try:
            self._parser.parse(data)
        except (GitProtocolError, ValueError) as error:
            raise GitalyError(self._operation, grpc.StatusCode.OK, f"no pkt-line: {error}") from error

    def _packet(self, packet: bytes | None) -> None:
        if packet is None:
            self.ended = self._in_pack
        elif packet.startswith(b"ERR "):
            self._refused(packet[4:])
        elif not self._in_pack:
            self.common = packet.startswith(b"ACK ")
            self._in_pack = True
        elif packet[:1] == _DATA:
            self.pack.append(packet[1:])
        elif packet[:1] == _FATAL:
            self._refused(packet[1:])

    def _refused(self, words: bytes) -> None:
        text = shown(words).strip()
        if _NOT_OUR_REF in text:
            raise NotOurRef(self._operation)
        raise GitError(self._operation, f"the server gives no pack: {text}", safe_to_repeat=True)


class _PushAnswer:
    """The packets of an answer to a push: a status report, plain or in the first band, ended by a flush."""

    def __init__(self, operation: str, *, banded: bool) -> None:
        self._operation = operation
        self._report = ReportStatusParser()
        self._ended = False
        self._lines = PktLineParser(self._line)
        self._outer = PktLineParser(self._packet) if banded else self._lines
        self._said: list[bytes] = []

    def parse(self, data: bytes) -> None:
        try:
            self._outer.parse(data)
        except (GitProtocolError, ValueError) as error:
            raise GitalyError(self._operation, grpc.StatusCode.OK, f"no pkt-line: {error}") from error

    def result(self) -> dict[str, str | None]:
        words = shown(b"".join(self._said)).strip()
        if not self._ended:
            raise GitalyError(self._operation, grpc.StatusCode.OK, f"the report on the push is cut short: {words}")
        try:
            return {shown(ref): error for ref, error in self._report.check()}
        except SendPackError as error:
            reason = " ".join(shown(said) for said in (*error.args, words.encode()) if said)
            raise GitError(self._operation, f"the server can't use the pack: {reason}", safe_to_repeat=True) from error

    def _packet(self, packet: bytes | None) -> None:
        if packet is None:
            return
        if packet[:1] == _DATA:
            self._lines.parse(packet[1:])
        else:
            self._said.append(packet[1:])

    def _line(self, packet: bytes | None) -> None:
        self._ended = self._ended or packet is None
        self._report.handle_packet(packet)

"""The calls of SmartHTTPService: fetch and push, by `git upload-pack` and `git receive-pack` themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import TypeVar

from conman.git.proto import gitaly_pb2 as pb
from conman.git.proto import gitaly_pb2_grpc as rpc
from conman.git.server_call import Ground, invalid
from conman.git.server_process import GitProcess, running_git

_UPLOAD, _RECEIVE = "upload-pack", "receive-pack"

_Post = TypeVar("_Post", pb.PostUploadPackRequest, pb.PostReceivePackRequest)


class SmartHTTPService(rpc.SmartHTTPServiceServicer):
    """Git's smart HTTP protocol. Private refs are fetched and pushed like any others; hooks are off."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def InfoRefsUploadPack(self, request: pb.InfoRefsRequest, context: object) -> AsyncIterator[pb.InfoRefsResponse]:
        """The refs and abilities that a fetch begins with."""
        async with aclosing(self._advertisement(_UPLOAD, request)) as pieces:
            async for piece in pieces:
                yield pb.InfoRefsResponse(data=piece)

    async def InfoRefsReceivePack(self, request: pb.InfoRefsRequest, context: object) -> AsyncIterator[pb.InfoRefsResponse]:
        """The refs and abilities that a push begins with."""
        async with aclosing(self._advertisement(_RECEIVE, request)) as pieces:
            async for piece in pieces:
                yield pb.InfoRefsResponse(data=piece)

    async def PostUploadPack(
        self, request_iterator: AsyncIterator[pb.PostUploadPackRequest], context: object
    ) -> AsyncIterator[pb.PostUploadPackResponse]:
        """One round of a fetch."""
        async with aclosing(self._post(_UPLOAD, request_iterator)) as pieces:
            async for piece in pieces:
                yield pb.PostUploadPackResponse(data=piece)

    async def PostReceivePack(
        self, request_iterator: AsyncIterator[pb.PostReceivePackRequest], context: object
    ) -> AsyncIterator[pb.PostReceivePackResponse]:
        """A push."""
        async with aclosing(self._post(_RECEIVE, request_iterator)) as pieces:
            async for piece in pieces:
                yield pb.PostReceivePackResponse(data=piece)

    def announcement(self, service: str) -> bytes:
        """What stands before an advertisement."""
        line = f"# service=git-{service}\n"
        return f"{len(line) + 4:04x}{line}0000".encode()

    async def _advertisement(self, service: str, request: pb.InfoRefsRequest) -> AsyncGenerator[bytes, None]:
        _check_options(request)
        folder = await self._ground.folder(f"info_refs_{service}", request.repository)
        arguments = (service, "--stateless-rpc", "--advertise-refs", ".")
        async with running_git(self._ground, folder, *arguments, protocol=request.git_protocol) as process:
            announcement = self.announcement(service)
            if announcement:
                yield announcement
            async for piece in process.pieces():
                yield piece

    async def _post(self, service: str, requests: AsyncIterator[_Post]) -> AsyncGenerator[bytes, None]:
        first = await anext(requests, None)
        if first is None:
            raise invalid("no request")
        _check_options(first)
        folder = await self._ground.folder(f"post_{service}", first.repository)
        arguments = (service, "--stateless-rpc", ".")
        async with running_git(
            self._ground, folder, *arguments, protocol=first.git_protocol, stdin=True, finishes=service == _RECEIVE
        ) as process:
            feeding = asyncio.ensure_future(_feed(process, first.data, requests))
            try:
                async for piece in process.pieces():
                    yield piece
            finally:
                feeding.cancel()
                with suppress(asyncio.CancelledError):
                    await feeding


async def _feed(process: GitProcess, first: bytes, requests: AsyncIterator[_Post]) -> None:
    try:
        if first:
            await process.write(first)
        async for request in requests:
            await process.write(request.data)
    finally:
        process.close_input()


def _check_options(request: pb.InfoRefsRequest | pb.PostUploadPackRequest | pb.PostReceivePackRequest) -> None:
    """Refuse settings for `git` in a request: they could name programs to run."""
    if request.git_config_options:
        raise invalid("git_config_options are not taken")

"""Commands while many listen to the app's events and never read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.load.bench_stack import App, Draft, each
from tests.load.report import Limit, Row, Sample, row, sample, say

LISTENERS = 200
ROUNDS = 3
COMMANDS = 40
"""Commands of a round, without listeners and then with them: the machine changes meanwhile, and both meet it alike."""
REVIEW = {"action": "request_changes", "comment": "bench"}


async def budgets(app: App) -> list[Row]:
    """All rows of this module."""
    drafts = await app.drafts(10)
    await each(drafts, Draft.judged)

    async def review(number: int) -> None:
        await app.stack.rob.call("POST", f"{drafts[number % len(drafts)].path}/review", json=REVIEW)

    alone, listened = Sample("alone", []), Sample("listened", [])
    for _ in range(ROUNDS):
        alone.times += (await sample("commands without listeners", COMMANDS, review)).times
        async with _silent(app):
            listened.times += (await sample(f"commands with {LISTENERS} silent listeners", COMMANDS, review)).times
    name = "without listeners"
    return [row(f"command with {LISTENERS} listeners who never read, p50", listened.p50, {name: alone.p50}, Limit(1.25, name))]


@asynccontextmanager
async def _silent(app: App) -> AsyncIterator[None]:
    """People who ask for the app's events and take nothing of the answer."""
    address = urlsplit(app.stack.ready["api_url"])
    sockets: list[socket.socket] = []
    loop = asyncio.get_running_loop()

    async def listen(number: int) -> None:
        one = socket.socket()
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # soon full, so that the server has to wait for this reader
        sockets.append(one)
        await loop.sock_connect(one, (address.hostname, address.port))
        login = app.author(number).headers["Authorization"]
        request = f"GET /api{app.path}/events HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: {login}\r\n\r\n"
        await loop.sock_sendall(one, request.encode())
        if not (await loop.sock_recv(one, 12)).endswith(b" 200"):
            raise SystemExit("a listener was refused")

    try:
        await each(list(range(LISTENERS)), listen)
        say(f"{LISTENERS} listen to {app.path}/events")
        yield
    finally:
        for one in sockets:
            one.close()

"""One message to one receiver, over a connection that leads where the operator lets webhooks go and nowhere else.

The name is looked up here, each address is judged, and the connection is made to an address that was judged: a name that answers
otherwise the second time gains nothing. No proxy and no other part of the environment is used, no redirect is followed, and of
an answer little is read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, cast
from urllib.parse import urlsplit

import httpcore

from conman.config import Settings
from conman.domain.plain_text import plain_line, shortened
from conman.domain.webhook import Problem
from conman.domain.webhook_target import may_reach

MOST_READ: Final = 1024
"""So much of an answer is read, bytes."""
_LONGEST_TEXT: Final = 200
_ASKS_FOR_REST: Final = (429, 503)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said; `rest` is how long it asks to be left alone."""

    status: int
    text: str = ""
    rest: timedelta = timedelta(0)

    @property
    def is_yes(self) -> bool:
        """Whether it has taken the message."""
        return 200 <= self.status <= 299


class NoAnswerError(Exception):
    """The receiver was not reached, or did not answer; its text is for operators, without anything of the message."""

    def __init__(self, problem: Problem, text: str) -> None:
        super().__init__(text)
        self.problem = problem


class Poster:
    """Sends messages; one per process."""

    def __init__(self, settings: Settings) -> None:
        self._networks = settings.webhook_networks
        self._seconds = settings.webhook_timeout_seconds
        self._authorities = None if settings.webhook_ca_file is None else str(settings.webhook_ca_file)
        self._tls: ssl.SSLContext | None = None
        # Threads of its own: a name server that does not answer must not hold up whatever else of the process looks up names.
        self._lookups = ThreadPoolExecutor(settings.webhook_concurrency, thread_name_prefix="webhook-names")

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a message and return what the receiver says. Raises `NoAnswerError`."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._post(url, headers, body)
        except TimeoutError:
            raise NoAnswerError(Problem.TIMEOUT, f"no answer within {self._seconds:g} s") from None
        except httpcore.TimeoutException as error:
            raise NoAnswerError(Problem.TIMEOUT, "the receiver did not go on") from error
        except httpcore.ConnectError as error:
            raise NoAnswerError(Problem.TLS if _is_of_tls(error) else Problem.CONNECT, _words(error)) from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise NoAnswerError(Problem.BROKEN, _words(error)) from error
        except ssl.SSLError as error:
            # TLS 1.3 ends the handshake before the receiver has judged: that it wants a certificate shows as its answer is read.
            raise NoAnswerError(Problem.TLS, _words(error)) from error

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        plain = urlsplit(url).scheme == "http"
        connections = httpcore.AsyncConnectionPool(
            ssl_context=None if plain else await self._context(),
            max_connections=1,
            network_backend=_Judging(self._networks, self._lookups, plain=plain),
        )
        async with connections as pool, pool.stream("POST", url, headers=list(headers.items()), content=body) as response:
            answer = Answer(response.status, rest=_asked_rest(response))
            return answer if answer.is_yes else Answer(answer.status, await _beginning(response), answer.rest)

    async def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context, cafile=self._authorities)
        return self._tls


class _Judging(httpcore.AsyncNetworkBackend):
    """Connects to names by addresses that webhooks may reach."""

    def __init__(self, networks: Sequence[str], lookups: Executor, *, plain: bool) -> None:
        self._networks = networks
        self._lookups = lookups
        self._plain = plain
        self._tcp = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first of the name's addresses that takes it. Raises `NoAnswerError`, or what httpcore raises."""
        refusal: httpcore.ConnectError | None = None
        for address in await self._addresses(host, port):
            try:
                return await self._tcp.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.ConnectError as error:
                refusal = error
        if refusal is not None:
            raise refusal
        raise NoAnswerError(
            Problem.FORBIDDEN_ADDRESS,
            "the name leads into a network that webhooks may not reach (CONMAN_WEBHOOK_NETWORKS)"
            + (", and without TLS they reach no public one" if self._plain else ""),
        )

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            look = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            found = await asyncio.get_running_loop().run_in_executor(self._lookups, look)
        except (OSError, UnicodeError) as error:
            raise NoAnswerError(Problem.DNS, f"the name has no address: {plain_line(str(error))}") from error
        addresses = dict.fromkeys(str(target[0]) for *_, target in found)
        return [one for one in addresses if may_reach(ipaddress.ip_address(one), self._networks, plain=self._plain)]

    async def sleep(self, seconds: float) -> None:
        """See the base class."""
        await asyncio.sleep(seconds)


def _asked_rest(response: httpcore.Response) -> timedelta:
    """What `Retry-After` says in seconds; a date is not looked at, since the receiver's clock is not ours."""
    if response.status not in _ASKS_FOR_REST:
        return timedelta(0)
    asked = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"").strip()
    return timedelta(seconds=int(asked)) if asked.isdigit() and len(asked) <= 6 else timedelta(0)


async def _beginning(response: httpcore.Response) -> str:
    """The first words of an answer, in one line; what breaks off after the status is no other outcome."""
    read = b""
    try:
        async for part in response.aiter_stream():
            read += part
            if len(read) >= MOST_READ:
                break
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ssl.SSLError):
        return _line(read)
    return _line(read)


def _line(read: bytes) -> str:
    return shortened(plain_line(read[:MOST_READ].decode("utf-8", "replace")), _LONGEST_TEXT)


def _is_of_tls(error: BaseException | None) -> bool:
    """Whether TLS is at the root of it, which stands somewhere below what the layers above made of it."""
    return error is not None and (isinstance(error, ssl.SSLError) or _is_of_tls(error.__cause__ or error.__context__))


def _words(error: Exception) -> str:
    return shortened(plain_line(str(error)) or type(error).__name__, _LONGEST_TEXT)

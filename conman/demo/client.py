"""What the demo's people use to talk to the API: every failure is one line, whoever is busy is asked again."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx

from conman.demo.show import DemoError

_T = TypeVar("_T")

_ANSWER_SECONDS = 60.0
"""Longer than the API itself waits for a command or a publication."""
_BUSY_SECONDS = 90.0
_BUSY = frozenset({httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE})
_POLL_SECONDS = 0.15
_ENDED = frozenset({"succeeded", "failed", "canceled"})


def open_client(api_url: str) -> httpx.AsyncClient:
    """A client for the API at a base URL; close it by `async with`."""
    return httpx.AsyncClient(base_url=f"{api_url}/api", trust_env=False, timeout=httpx.Timeout(_ANSWER_SECONDS, connect=5.0))


class Session:
    """One person's session. All methods raise `DemoError` for an answer that is not a success, and for none."""

    def __init__(self, http: httpx.AsyncClient, name: str, user: dict[str, Any], token: str) -> None:
        self.name = name
        self.user = user
        self._http = http
        self._token = token

    @classmethod
    async def log_in(cls, http: httpx.AsyncClient, name: str, email: str, password: str) -> Session:
        """Start a session."""
        response = await _send(http, "POST", "/auth/login", {}, json={"email": email, "password": password})
        login = _content(response)["data"]
        return cls(http, name, login["user"], login["token"])

    async def get(self, path: str, /, **query: Any) -> Any:
        """The `data` of a record or a list."""
        return _content(await self._ask("GET", path, params=query))["data"]

    async def page(self, path: str, /, **query: Any) -> tuple[list[dict[str, Any]], int]:
        """One page of a list, and how long the whole list is."""
        content = _content(await self._ask("GET", path, params=query))
        return content["data"], content["pagination"]["total"]

    async def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The `data` of what was made or done."""
        return _content(await self._ask("POST", path, json=body or {}))["data"]

    async def put(self, path: str, body: dict[str, Any]) -> Any:
        """The `data` of what was written."""
        return _content(await self._ask("PUT", path, json=body))["data"]

    async def refused(self, path: str, body: dict[str, Any], code: str) -> str:
        """The message with which a POST is refused; an answer without this error code is a `DemoError`."""
        response = await self._ask("POST", path, json=body)
        if response.is_success:
            raise DemoError(f"POST /api{path} was accepted; it ought to be refused with {code}")
        error = _error(response)
        if error is None or error["code"] != code:
            raise DemoError(f"{_failure(response)}; it ought to be refused with {code}")
        return error["message"]

    async def job(self, app: str, job_id: str, seconds: float) -> dict[str, Any]:
        """The job when it has ended, however it did."""

        async def look() -> dict[str, Any] | None:
            job = (await self.get(f"{app}/jobs/{job_id}"))["job"]
            return job if job["state"] in _ENDED else None

        return await until(f"job {job_id}", look, seconds)

    async def log(self, app: str, job_id: str) -> list[str]:
        """The lines of a job's log."""
        lines: list[str] = []
        after = 0
        while True:
            part = await self.get(f"{app}/jobs/{job_id}/logs", after=after)
            lines += [line["text"] for line in part["lines"]]
            after = part["next"]
            if not part["lines"]:
                return lines

    async def _ask(self, method: str, path: str, **content: Any) -> httpx.Response:
        return await _send(self._http, method, path, {"Authorization": f"Bearer {self._token}"}, **content)


async def until(what: str, look: Callable[[], Awaitable[_T | None]], seconds: float) -> _T:
    """What `look` finds, asked again and again until it is not None. Raises `DemoError` after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        found = await look()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise DemoError(f"{what} has not ended after {seconds:.0f} s")
        await asyncio.sleep(_POLL_SECONDS)


async def _send(http: httpx.AsyncClient, method: str, path: str, headers: dict[str, str], **content: Any) -> httpx.Response:
    """One request; while the API asks for patience it is repeated with the same key, so that it has one effect."""
    if method != "GET":
        headers = {**headers, "Idempotency-Key": uuid.uuid4().hex}
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            response = await http.request(method, path, headers=headers, **content)
        except httpx.HTTPError as error:
            raise DemoError(f"{method} /api{path} got no answer: {error or type(error).__name__}") from error
        pause = _pause(response)
        if pause is None or time.monotonic() + pause > deadline:
            return response
        await asyncio.sleep(pause)


def _pause(response: httpx.Response) -> float | None:
    """For how long the API wants to be left alone before the same request, in seconds; None when it doesn't say so."""
    after = response.headers.get("Retry-After", "")
    return float(after) if response.status_code in _BUSY and after.isdecimal() else None


def _content(response: httpx.Response) -> dict[str, Any]:
    """The body of a success. Raises `DemoError`."""
    if not response.is_success:
        raise DemoError(_failure(response))
    try:
        content = response.json()
    except ValueError as error:
        raise DemoError(f"{_asked(response)} was answered {response.status_code} with a body that is not JSON") from error
    return content


def _asked(response: httpx.Response) -> str:
    return f"{response.request.method} {response.request.url.path}"


def _error(response: httpx.Response) -> dict[str, str] | None:
    """The error of the envelope, None where the answer has none."""
    try:
        error = response.json()["error"]
        return {name: str(error[name]) for name in ("code", "message", "request_id")}
    except (ValueError, KeyError, TypeError):
        return None


def _failure(response: httpx.Response) -> str:
    error = _error(response)
    said = f"{_asked(response)} was answered {response.status_code}"
    if error is None:
        return f"{said} without an error envelope (request id {response.headers.get('X-Request-Id', 'unknown')})"
    return f"{said} {error['code']}: {error['message']} (request id {error['request_id']})"

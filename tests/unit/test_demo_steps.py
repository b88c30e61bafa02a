"""The demo's client: every failure is one line, the busy are asked again with one effect, refusals are checked."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import httpx
import pytest
from rich.console import Console

from conman.demo.client import Session, until
from conman.demo.edits import BROKEN, Edit
from conman.demo.show import DemoError, Steps

Handler = Callable[[httpx.Request], httpx.Response]
REFUSAL = {"error": {"code": "gate_not_passed", "message": "Wait for the gate.", "request_id": "request-0001"}}


def session(handler: Handler) -> Session:
    http = httpx.AsyncClient(base_url="http://conman/api", transport=httpx.MockTransport(handler))
    return Session(http, "ann", {"id": "1"}, "token")


async def test_a_refusal_is_one_line_with_message_and_request_id() -> None:
    asked = session(lambda _: httpx.Response(409, json=REFUSAL))
    line = "POST /api/things was answered 409 gate_not_passed: Wait for the gate. (request id request-0001)"
    with pytest.raises(DemoError, match=f"^{re.escape(line)}$"):
        await asked.post("/things")


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"error": "text"}', b"{}"])
async def test_a_failure_without_an_envelope_is_one_line_too(content: bytes) -> None:
    asked = session(lambda _: httpx.Response(502, content=content, headers={"X-Request-Id": "request-0002"}))
    line = "GET /api/things was answered 502 without an error envelope (request id request-0002)"
    with pytest.raises(DemoError, match=f"^{re.escape(line)}$"):
        await asked.get("/things")


async def test_no_answer_is_one_line() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    with pytest.raises(DemoError, match=r"^GET /api/things got no answer: connection refused$"):
        await session(refuse).get("/things")


@pytest.mark.parametrize("status", [429, 503])
async def test_who_is_busy_is_asked_again_with_the_same_key(status: int) -> None:
    keys: list[str] = []

    def busy_once(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            return httpx.Response(status, json=REFUSAL, headers={"Retry-After": "0"})
        return httpx.Response(200, json={"data": 7})

    asked = session(busy_once)
    assert await asked.post("/things") == 7
    assert len(keys) == 2 and keys[0] == keys[1]
    await asked.post("/things")
    assert keys[2] != keys[0]


async def test_who_is_busy_for_too_long_is_a_failure() -> None:
    asked = session(lambda _: httpx.Response(429, json=REFUSAL, headers={"Retry-After": "900"}))
    with pytest.raises(DemoError, match="was answered 429"):
        await asked.get("/things")


async def test_a_refusal_that_is_wanted_gives_its_message_and_anything_else_fails() -> None:
    asked = session(lambda _: httpx.Response(409, json=REFUSAL))
    assert await asked.refused("/things", {}, "gate_not_passed") == "Wait for the gate."
    with pytest.raises(DemoError, match=r"gate_not_passed: .* it ought to be refused with conflict$"):
        await asked.refused("/things", {}, "conflict")
    with pytest.raises(DemoError, match=r"was accepted; it ought to be refused with conflict$"):
        await session(lambda _: httpx.Response(200, json={"data": 1})).refused("/things", {}, "conflict")


async def test_waiting_has_an_end() -> None:
    async def never() -> None:
        return None

    with pytest.raises(DemoError, match=r"^the end has not ended after 0 s$"):
        await until("the end", never, 0)


def test_an_edit_changes_what_it_names_and_refuses_other_files() -> None:
    edit = Edit("a.yaml", {"old: 1": "new: 2"})
    assert edit.apply("x: 0\r\nold: 1\r\n") == "x: 0\r\nnew: 2\r\n"
    with pytest.raises(DemoError, match=r"^a\.yaml does not hold 'old: 1'"):
        edit.apply("x: 0\n")


def test_a_step_that_fails_says_which_one_it_was_and_writes_no_line_of_success() -> None:
    written = io.StringIO()
    steps = Steps(Console(file=written, width=40))
    with pytest.raises(DemoError, match=r"^Rob approves: no$"), steps.step("Rob approves"):
        raise DemoError("no")
    assert written.getvalue() == ""


def test_a_line_is_one_line_however_narrow_the_output() -> None:
    written = io.StringIO()
    steps = Steps(Console(file=written, width=20))
    with steps.step("look") as step:
        step.said = f"[bold] {BROKEN.edits[0].path}, line 5, and more words than the width"
    steps.failed("[red] many words that would not fit into twenty columns")
    assert re.fullmatch(r" +0\.0\d s  \[bold\] .* width\nconman demo failed: \[red\] many .* columns\n", written.getvalue())

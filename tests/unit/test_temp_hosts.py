"""Whose a `Host` header is, and of which type a file is sent (`spec.md` 13)."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.types import Message, Receive, Scope, Send

from conman.api.file_replies import media_type
from conman.api.temp_hosts import TempHostMiddleware, host_of, is_below


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("shop-workspace-calm-lake.localhost:8080", "shop-workspace-calm-lake.localhost"),
        ("Shop-Workspace-Calm-Lake.LOCALHOST.", "shop-workspace-calm-lake.localhost"),
        ("localhost", "localhost"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:8080", "[::1]"),
        ("", ""),
    ],
)
def test_a_host_is_told_without_case_port_and_the_dot_of_the_root(header: str, host: str) -> None:
    assert host_of(header) == host


@pytest.mark.parametrize(
    ("host", "below"),
    [
        ("a.temp.example.com", True),
        ("a.b.temp.example.com", True),
        ("temp.example.com", False),
        ("atemp.example.com", False),
        ("temp.example.com.evil.net", False),
    ],
)
def test_only_names_under_a_domain_are_below_it(host: str, below: bool) -> None:
    assert is_below(host, "temp.example.com") is below


async def test_a_request_that_names_two_hosts_reaches_neither() -> None:
    async def api(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the API was asked")

    async def receive() -> Message:
        return {"type": "http.request"}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    settings = SimpleNamespace(public_url="http://localhost:8080", host="localhost", temp_url_domain="localhost")
    platform = SimpleNamespace(db=None, settings=settings)
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/me",
        "headers": [(b"host", b"localhost"), (b"host", b"shop-workspace-calm-lake.localhost")],
    }
    await TempHostMiddleware(api, cast("Any", platform))(scope, receive, send)
    assert sent[0]["status"] == 400
    assert json.loads(sent[1]["body"])["error"]["details"][0]["field"] == "Host"


@pytest.mark.parametrize(
    ("path", "data", "expected"),
    [
        ("a.json", b"{}", "application/json; charset=utf-8"),
        ("a.js", b"x", "text/javascript; charset=utf-8"),
        ("a.yml", b"a: 1", "application/yaml; charset=utf-8"),
        ("a.svg", b"<svg/>", "image/svg+xml; charset=utf-8"),
        ("a.html", "<p>ä</p>".encode("latin-1"), "text/html"),
        ("a.png", b"\x89PNG", "image/png"),
        ("LICENSE", b"free", "text/plain; charset=utf-8"),
        ("app.properties", "a=ä".encode(), "text/plain; charset=utf-8"),
        ("LICENSE", b"\0free", "application/octet-stream"),
        ("noise", b"\xff\xfe", "application/octet-stream"),
        ("a.tar.gz", b"\x1f\x8b", "application/gzip"),
        ("data.json.br", b"\x8b", "application/x-brotli"),
    ],
)
def test_a_file_is_sent_as_what_its_name_says_and_text_with_its_charset(path: str, data: bytes, expected: str) -> None:
    assert media_type(path, data) == expected

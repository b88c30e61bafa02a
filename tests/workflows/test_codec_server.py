"""`conman codec-server` as a process, over real HTTP: who may read, what it answers, how it ends (`durability.md` 24)."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from codec_samples import PLANTED, A, B
from google.protobuf.json_format import MessageToDict, ParseDict
from temporalio.api.common.v1 import Payload
from temporalio.testing import WorkflowEnvironment

from conman.embedded.cache import Cache
from conman.embedded.temporal import find_temporal, server_environment
from conman.embedded.testing import say
from conman.workflows.client import connect
from conman.workflows.codec import ENCODING, KEY_ID, KeyringCodec

PATIENCE = 30.0
TOKEN = "a token of thirty-two bytes or more"
UI = "https://temporal.example:8233"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def keys(*keyrings: dict[str, bytes]) -> str:
    """Keyrings as the setting is written."""
    return ",".join(f"{key_id}:{base64.b64encode(key).decode()}" for ring in keyrings for key_id, key in ring.items())


@contextmanager
def started(folder: Path, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """The command on a free port; killed at the end if it still runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONMAN_")}
    environment |= {"CONMAN_CODEC_KEYS": keys(B, A)} | settings
    command = [sys.executable, "-m", "conman", "codec-server", "--data", str(folder), "--port", "0", *arguments]
    command += ["--ready-file", str(folder / "ready.json")]
    process = subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def url_of(folder: Path, process: subprocess.Popen[str]) -> str:
    """Where it listens, once it does."""
    deadline = time.monotonic() + PATIENCE
    while not (folder / "ready.json").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "never ready"
        time.sleep(0.02)
    return json.loads((folder / "ready.json").read_text())["url"]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("codec")
    settings = {"CONMAN_CODEC_SERVER_TOKEN": TOKEN, "CONMAN_CODEC_SERVER_ORIGINS": UI, "CONMAN_CODEC_SERVER_MAX_BODY_MB": "1"}
    with started(folder, **settings) as process:
        yield url_of(folder, process)


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE) as client:
        yield client


PLAIN = [Payload(metadata={"encoding": b"json/plain"}, data=f'"{PLANTED} {n}"'.encode()) for n in range(3)]


def written(*payloads: Payload) -> dict[str, Any]:
    return {"payloads": [MessageToDict(payload) for payload in payloads]}


def read(response: httpx.Response) -> list[Payload]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return [ParseDict(payload, Payload()) for payload in response.json()["payloads"]]


def encrypted(keyring: dict[str, bytes], *payloads: Payload) -> list[Payload]:
    return asyncio.run(KeyringCodec(keyring).encode(payloads))


@pytest.mark.parametrize("prefix", ["", "/default", "/codec/default", "/decode"], ids=["none", "namespace", "deep", "odd"])
def test_it_decodes_in_order_what_any_of_its_keys_wrote_and_what_is_plain(http: httpx.Client, prefix: str) -> None:
    [old], [new] = encrypted(A, PLAIN[0]), encrypted(B, PLAIN[1])
    answer = http.post(f"{prefix}/decode", json=written(old, new, PLAIN[2]), headers={**BEARER, "X-Namespace": "default"})
    assert read(answer) == PLAIN


def test_it_encodes_under_the_first_key(http: httpx.Client) -> None:
    encoded = read(http.post("/encode", json=written(*PLAIN), headers=BEARER))
    assert {(payload.metadata["encoding"], payload.metadata[KEY_ID]) for payload in encoded} == {(ENCODING, b"b")}
    assert asyncio.run(KeyringCodec(B).decode(encoded)) == PLAIN


def test_nothing_to_decode_is_answered_with_nothing(http: httpx.Client) -> None:
    assert http.post("/decode", json={"payloads": []}, headers=BEARER).json() == {"payloads": []}


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"ada:{password}".encode()).decode()


@pytest.mark.parametrize("path", ["/decode", "/default/encode"])
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"Token {TOKEN}", TOKEN, basic("wrong"), "Basic !", "Basic w6Q="],
)
def test_without_the_token_nobody_reads_or_writes(http: httpx.Client, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = http.post(path, json=written(*encrypted(A, PLAIN[0])), headers=headers)
    assert answer.status_code == 401
    assert "Bearer" in answer.headers["www-authenticate"] and "Basic" in answer.headers["www-authenticate"]
    assert "message" in answer.json() and "payloads" not in answer.json()


def test_a_browser_signs_in_once_with_the_token_as_password(http: httpx.Client) -> None:
    assert http.get("/").status_code == 401
    assert "include cross-origin credentials" in http.get("/", headers={"Authorization": basic(TOKEN)}).text
    answer = http.post("/decode", json=written(*encrypted(A, PLAIN[0])), headers={"Authorization": basic(TOKEN), "Origin": UI})
    assert read(answer) == PLAIN[:1]
    assert answer.headers["access-control-allow-origin"] == UI
    assert answer.headers["access-control-allow-credentials"] == "true"


def preflight(http: httpx.Client, origin: str) -> httpx.Response:
    asked = "authorization,content-type,x-namespace"
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked}
    return http.options("/default/decode", headers=headers)


def test_the_web_uis_pages_may_call_with_the_headers_that_they_send(http: httpx.Client) -> None:
    answer = preflight(http, UI)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == UI
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in ("authorization", "content-type", "x-namespace"))


@pytest.mark.parametrize("origin", ["https://evil.example", "http://temporal.example:8233", f"{UI}.evil.example", "null"])
def test_pages_of_other_origins_are_refused_even_with_the_token(http: httpx.Client, origin: str) -> None:
    assert preflight(http, origin).status_code == 400
    answer = http.post("/decode", json=written(*encrypted(A, PLAIN[0])), headers={**BEARER, "Origin": origin})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert "CONMAN_CODEC_SERVER_ORIGINS" in answer.json()["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"payloads"',
        b"{}",
        b'{"payloads": null}',
        b'{"payloads": {}}',
        b'{"payloads": [null]}',
        b'{"payloads": ["x"]}',
        b'{"payloads": [{"data": 7}]}',
        b'{"payloads": [{"metadata": {"encoding": 1}}]}',
        b'{"payloads": [{"metadata": []}]}',
        b"\xff\xfe",
        b'{"payloads": ' + b"[" * 100_000,
        b'{"payloads": [], "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda body: repr(body[:40]),
)
def test_a_body_in_another_form_is_refused(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/decode", content=body, headers=BEARER)
    assert (answer.status_code, list(answer.json())) == (400, ["message"])


def test_fields_of_a_newer_protocol_are_ignored(http: httpx.Client) -> None:
    body = written(*encrypted(A, PLAIN[0])) | {"future": {"x": 1}}
    body["payloads"][0]["future"] = [1]
    assert read(http.post("/decode", json=body, headers=BEARER)) == PLAIN[:1]


def test_what_can_not_be_decoded_says_why_and_shows_nothing(http: httpx.Client) -> None:
    [unknown] = encrypted({"c": b"c" * 32}, PLAIN[0])
    [tampered] = encrypted(A, PLAIN[0])
    tampered.data = tampered.data[:-1] + bytes([tampered.data[-1] ^ 1])
    for payload, says in ((unknown, "under the key 'c'"), (tampered, "does not open")):
        answer = http.post("/decode", json=written(PLAIN[1], payload), headers=BEARER)
        assert answer.status_code == 400
        assert says in answer.json()["message"] and PLANTED not in answer.text


def test_a_body_beyond_the_limit_is_refused_before_it_is_read_whole(http: httpx.Client) -> None:
    at_most = b'{"payloads": []}'.ljust(1024 * 1024)
    assert http.post("/decode", content=at_most, headers=BEARER).status_code == 200
    assert http.post("/decode", content=at_most + b" ", headers=BEARER).status_code == 413

    def endless() -> Iterator[bytes]:
        while True:
            yield b" " * 65_536

    with suppress(httpx.WriteError):  # it closed the connection while we still wrote
        assert http.post("/decode", content=endless(), headers=BEARER).status_code == 413


def test_other_paths_and_methods_do_not_exist_and_health_asks_for_no_token(http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/decode", headers=BEARER).status_code == 405
    assert http.post("/decode/", json=written(), headers=BEARER, follow_redirects=False).status_code in (307, 404)
    assert http.post("/download", json=written(), headers=BEARER).status_code == 404


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_logs_no_payload_and_ends_well_when_it_is_told_to(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path, CONMAN_CODEC_SERVER_TOKEN=TOKEN) as process:
        url = url_of(tmp_path, process)
        [payload] = encrypted(A, PLAIN[0])
        assert read(httpx.post(f"{url}/decode", json=written(payload), headers=BEARER, trust_env=False)) == PLAIN[:1]
        unknown = written(PLAIN[0], *encrypted({"c": b"c" * 32}, PLAIN[0]))
        assert httpx.post(f"{url}/decode", json=unknown, headers=BEARER, trust_env=False).status_code == 400
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert url in said and "keys b, a" in said and '"codec_request"' in said
    encoded = MessageToDict(payload)["data"]
    assert not [secret for secret in (PLANTED, TOKEN, keys(A)[2:], keys(B)[2:], encoded) if secret in said]
    assert not (tmp_path / "ready.json").exists()


@pytest.mark.parametrize(
    ("settings", "arguments", "says"),
    [
        ({"CONMAN_CODEC_KEYS": ""}, (), "CONMAN_CODEC_KEYS"),
        ({}, ("--host", "0.0.0.0"), "without CONMAN_CODEC_SERVER_TOKEN, 0.0.0.0 is not listened on"),
        ({"CONMAN_CODEC_SERVER_TLS_CERT": "cert.pem"}, (), "TLS needs both"),
        ({"CONMAN_CODEC_SERVER_TLS_CERT": "no.pem", "CONMAN_CODEC_SERVER_TLS_KEY": "no.key"}, (), "there is no file no.pem"),
        ({"CONMAN_CODEC_SERVER_TOKEN": TOKEN}, ("--host", "192.0.2.1"), "can't listen on 192.0.2.1"),
    ],
    ids=["no keys", "no token", "half of TLS", "no certificate", "foreign address"],
)
def test_it_does_not_start_on_what_is_missing_or_unsafe(
    tmp_path: Path, settings: dict[str, str], arguments: tuple[str, ...], says: str
) -> None:
    with started(tmp_path, *arguments, **settings) as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert says in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "ready.json").exists()


async def test_temporals_own_cli_shows_what_is_encrypted_once_it_is_given_the_server_and_its_token(
    dev_server: WorkflowEnvironment, url: str
) -> None:
    address = dev_server.client.service_client.config.target_host
    client = await connect(address, dev_server.client.namespace, KeyringCodec(A))
    await client.start_workflow("nobody-runs-it", PLANTED, id="shown-by-the-cli", task_queue="nobody")
    binary = await find_temporal(Cache(), say)

    async def show(*options: str) -> str:
        command = [str(binary), "workflow", "show", "-w", "shown-by-the-cli", "--address", address, "-o", "json", *options]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=server_environment(os.environ),
        )
        async with asyncio.timeout(PATIENCE):
            said, _ = await process.communicate()
        return said.decode()

    decoded = base64.b64encode(f'"{PLANTED}"'.encode()).decode()
    assert decoded in await show("--codec-endpoint", f"{url}/{{namespace}}", "--codec-auth", f"Bearer {TOKEN}")
    assert decoded not in await show()
    await client.get_workflow_handle("shown-by-the-cli").terminate()

"""A missing or wrong master key is told by the start itself, in one line, never by a request later (`spec.md` 6)."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from conman.config import generate_secret
from conman.embedded.stack import EmbeddedStack
from conman.embedded.testing import running_stack
from conman.services.clock import new_id
from conman.services.secrets import Secrets, seal
from conman.services.vault import Vault
from conman.settings.vault import generate_keyring
from conman.store.database import connect, ensure_indexes
from tests.support.sizes import some, some_of

SECONDS = 120.0
KEYRING = generate_keyring()
KEY_ID = KEYRING.partition(":")[0]
WRONG = f"{KEY_ID}:{generate_keyring().partition(':')[2]}"
CASES = {
    "none": (None, "CONMAN_MASTER_KEYS: is missing"),
    "another": (generate_keyring(), f"CONMAN_MASTER_KEYS: secrets are kept under {KEY_ID}, which it does not hold"),
    "wrong": (WRONG, "CONMAN_MASTER_KEYS: the data key"),
    "bad": ("main:short", "CONMAN_MASTER_KEYS: Value error, the key main is not 32 bytes"),
}


@pytest_asyncio.fixture(scope="module")
async def servers() -> AsyncIterator[EmbeddedStack]:
    async with running_stack() as stack:
        client = connect(stack.mongo_uri)
        store = Secrets(client["conman"], Vault.of(KEYRING))
        await ensure_indexes(store.db)
        await seal(store, new_id(), {"KEY": "correct horse battery staple"}, {"KEY": new_id()})
        await client.close()
        yield stack


async def conman(servers: EmbeddedStack, folder: Path, command: str, keyring: str | None) -> tuple[int | None, str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("CONMAN_")}
    env |= {
        "CONMAN_DATA": str(folder),
        "CONMAN_MONGO_URI": servers.mongo_uri,
        "CONMAN_TEMPORAL_ADDRESS": servers.temporal_address,
        "CONMAN_SECRET": generate_secret(),
        "CONMAN_PORT": "0",
    }
    if keyring is not None:
        env["CONMAN_MASTER_KEYS"] = keyring
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "conman", command),
        env=env,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("command", ["api", "worker"])
@pytest.mark.parametrize("case", some(CASES, one_in=2))
async def test_a_process_without_the_right_master_key_does_not_start(
    servers: EmbeddedStack, tmp_path: Path, command: str, case: str
) -> None:
    keyring, told = CASES[case]
    code, _, err = await conman(servers, tmp_path, command, keyring)
    assert code == 2
    (line,) = [line for line in err.splitlines() if "CONMAN_MASTER_KEYS" in line]
    assert told in line
    assert "Traceback" not in err
    assert keyring is None or keyring.partition(":")[2] not in err


@pytest.mark.parametrize("case", some_of(["none", "another", "wrong"], one_in=3))
async def test_the_doctor_tells_it_too(servers: EmbeddedStack, tmp_path: Path, case: str) -> None:
    keyring, told = CASES[case]
    code, out, _ = await conman(servers, tmp_path, "doctor", keyring)
    assert code == 1
    (line,) = [line for line in out.splitlines() if "master keys" in line]
    assert line.startswith("mend")
    assert told in line


async def test_the_doctor_names_the_keys_of_a_good_keyring(servers: EmbeddedStack, tmp_path: Path) -> None:
    _, out, _ = await conman(servers, tmp_path, "doctor", KEYRING)
    (line,) = [line for line in out.splitlines() if "master keys" in line]
    assert line == f"ok   master keys: {KEY_ID} (the first is primary)"

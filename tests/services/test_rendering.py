"""Profiles with their secrets in gates and environments, and nowhere else (`spec.md` 6, 9 and 12)."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from conman.activities.gates import GateActivities
from conman.activities.targets import TargetActivities
from conman.config import Settings
from conman.domain.app import BRANCHES
from conman.domain.decision import Verdict
from conman.domain.jobs import JobType, ReasonCode
from conman.domain.messages import GateRun, GateStart, SwitchRequest
from conman.services.clock import new_id
from conman.services.platform import Platform
from conman.services.secrets import Secrets, seal
from conman.services.vault import Vault, VaultError
from conman.settings.vault import generate_keyring
from conman.store.database import Document
from tests.services.shop import Shop

OLD = {"TOKEN": "the token of revision one"}
NEW = {"TOKEN": "the token: 100% \"ü\" & 'two'", "PIN": "4711", "PEM": "-----BEGIN-----\nc2VjcmV0c2VjcmV0\n-----END-----\n"}
QA = {"id": "qa", "name": "QA", "runtime_profile_id": "its profile"}
ALL = (*OLD.values(), *NEW.values())

SUITE = """
import base64, json, os, sys, time
from urllib.parse import quote
with open(os.environ["CONMAN_PROFILE_JSON"]) as file:
    profile = json.load(file)
token = os.environ["TOKEN"]
assert profile["secrets"]["TOKEN"] == token
for name in ("CONMAN_PROFILE_ENV", "CONMAN_PROFILE_JSON"):
    print(name, oct(os.stat(os.environ[name]).st_mode & 0o777))
print("env", dict(os.environ))
print(json.dumps(profile))
print(open(os.environ["CONMAN_PROFILE_ENV"]).read())
for each in profile["secrets"].values():
    print(each, quote(each), base64.b64encode(each.encode()).decode(), file=sys.stderr)
print("x" * 8185 + token)
for character in token:
    sys.stdout.write(character)
    sys.stdout.flush()
    time.sleep(0.01)
print()
with open(os.environ["MSUITE_REPORT"], "w") as file:
    json.dump({"failures": [f"it was {token}"], token: profile["secrets"].get("PIN"), "pin": 4711}, file)
print("plain", os.environ["MODE"])
sys.exit(token)
"""


@dataclass
class Gates:
    """An app with a profile of two revisions, and what renders it."""

    shop: Shop
    platform: Platform
    keyring: str
    profile_id: str
    old_revision: str
    folder: Path

    @property
    def settings(self) -> Settings:
        suite = self.folder / "suite.py"
        suite.write_text(SUITE, encoding="utf-8")
        return Settings(data=self.folder / "data", msuite_command=[sys.executable, str(suite)], gate_memory_mb=16384)

    async def gate(self, revision_id: str | None, *, vault: Vault | None = None) -> tuple[Verdict, str]:
        """A gate's verdict and its log."""
        db = self.platform.db
        job_id = new_id()
        await db["jobs"].insert_one({"_id": job_id, "state": "queued", "version": 1})
        start = GateStart(
            job_id=job_id,
            app_id=self.shop.app["_id"],
            job_type=JobType.MSUITE_DEPLOY,
            entity_type="deployment",
            entity_id=new_id(),
            commit_sha=await self.shop.tip(self.platform, f"{BRANCHES}main"),
            scope="deploy",
            profile_id=self.profile_id,
            profile_revision_id=revision_id,
        )
        gates = GateActivities(self.settings, db, self.platform.git, vault or Vault.of(self.keyring))
        verdict: Any = await ActivityEnvironment().run(
            gates.run_gate, GateRun(gate=start, attempt=1, max_attempts=1, timeout_seconds=60)
        )
        chunks = await db["job_logs"].find({"job_id": job_id}).sort("first_seq", 1).to_list()
        return verdict, "\n".join(line["text"] for chunk in chunks for line in chunk["lines"])

    async def switch(self, revision_id: str | None, *, fence: int = 1, profile_id: str | None = None) -> Path:
        """The folder that the environment shows."""
        targets = TargetActivities(self.settings, self.platform.db, self.platform.git, Vault.of(self.keyring))
        request = SwitchRequest(
            app_id=self.shop.app["_id"],
            environment_id="qa",
            deployment_id=new_id(),
            release_id=new_id(),
            tag="r2026.01.31.1",
            commit_sha=await self.shop.tip(self.platform, f"{BRANCHES}main"),
            profile_id=profile_id or self.profile_id,
            fence=fence,
            profile_revision_id=revision_id,
        )
        reply: Any = await ActivityEnvironment().run(targets.switch_environment, request)
        return Path(reply.folder)


@pytest.fixture
async def gates(shop: Shop, tmp_path: Path) -> AsyncIterator[Gates]:
    keyring = generate_keyring()
    async with shop.platform() as platform:
        store = Secrets(platform.db, Vault.of(keyring))
        app_id, profile_id = shop.app["_id"], new_id()
        shop.app["settings"]["env_defaults"] = {"MODE": {"type": "string", "value": "default"}}
        await platform.db["apps"].insert_one({**shop.app, "environments": [QA]})
        revisions: list[Document] = []
        for number, values in enumerate((OLD, NEW), start=1):
            refs = await seal(store, profile_id, values, {key: new_id() for key in values})
            content = {"name": "QA", "secrets": {key: ref.model_dump() for key, ref in refs.items()}}
            content["env_vars"] = {"NUMBER": {"type": "number", "value": number}}
            revision = {"_id": new_id(), "app_id": app_id, "profile_id": profile_id, "revision_number": number}
            revisions.append({**revision, "content": content})
        await platform.db["profile_revisions"].insert_many(revisions)
        old, new = revisions
        profile = {"_id": profile_id, "app_id": app_id, "version": 2, "revision_number": 2, "revision_id": new["_id"]}
        await platform.db["profiles"].insert_one({**profile, "content": new["content"]})
        yield Gates(shop, platform, keyring, profile_id, old["_id"], tmp_path)


def not_in(text: str) -> None:
    """No secret, in no spelling."""
    for value in ALL:
        encoded = base64.b64encode(value.encode()).decode().rstrip("=")[:-1]
        for spelled in (value.strip(), json.dumps(value)[1:-1], quote(value), quote(value, safe="")):
            assert spelled not in text
        assert len(value) < 6 or encoded not in text
    assert "c2VjcmV0c2VjcmV0" not in text


async def test_a_suite_gets_the_secrets_and_nothing_of_them_is_kept_of_it(gates: Gates) -> None:
    verdict, log = await gates.gate(None)
    assert verdict.reason_code is ReasonCode.TESTS_FAILED
    assert "CONMAN_PROFILE_ENV 0o600" in log
    assert "CONMAN_PROFILE_JSON 0o600" in log
    assert "plain default" in log
    assert "TOKEN='****'" in log
    not_in(log)
    assert verdict.summary is not None
    assert verdict.summary["report"] == {"failures": ["it was ****"], "****": "****", "pin": "****"}
    not_in(verdict.model_dump_json())
    assert list((gates.folder / "data" / "scratch").iterdir()) == []


async def test_a_gate_renders_the_revision_that_is_pinned(gates: Gates) -> None:
    verdict, log = await gates.gate(gates.old_revision)
    assert verdict.reason_code is ReasonCode.TESTS_FAILED
    assert '"NUMBER": {"type": "number", "value": 1}' in log
    assert '"secrets": {"TOKEN": "****"}' in log
    not_in(log)


async def test_a_gate_whose_secrets_cannot_be_read_says_so_and_runs_again_later(gates: Gates) -> None:
    verdict, log = await gates.gate(None, vault=Vault.of(generate_keyring()))
    assert verdict.reason_code is ReasonCode.INFRASTRUCTURE
    assert log.startswith("The profile can't be rendered: the master key local-")
    assert "add it to CONMAN_MASTER_KEYS" in log


async def test_a_gate_of_a_revision_that_is_gone_does_not_run_with_another_one(gates: Gates) -> None:
    verdict, log = await gates.gate(new_id())
    assert verdict.reason_code is ReasonCode.RUNNER_ERROR
    assert "revision of the runtime profile" in log


async def test_the_scratch_of_a_dead_worker_goes_once_its_job_has_ended(gates: Gates) -> None:
    db, scratch = gates.platform.db, gates.folder / "data" / "scratch"
    ended, running, unknown = new_id(), new_id(), new_id()
    await db["jobs"].insert_many([{"_id": ended, "state": "failed"}, {"_id": running, "state": "running"}])
    for job_id in (ended, running, unknown):
        (scratch / f"{job_id}-1-1").mkdir(parents=True)
        (scratch / f"{job_id}-1-1" / "profile.env").touch()
    await GateActivities(gates.settings, db, gates.platform.git, Vault.of(gates.keyring)).clear_left_behind()
    assert [path.name for path in scratch.iterdir()] == [f"{running}-1-1"]


async def test_an_environment_shows_its_profile_with_secrets_to_its_owner_only(gates: Gates) -> None:
    current = await gates.switch(None)
    folder = current.resolve() / "profile"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    profile = json.loads((folder / "profile.json").read_text(encoding="utf-8"))
    assert profile["secrets"] == NEW
    assert profile["env_vars"] == {"NUMBER": {"type": "number", "value": 2}}
    shell = 'set -a; . "$0"; printf "%s|%s|%s|%s" "$TOKEN" "$PIN" "$MODE" "$NUMBER"'
    command = ["sh", "-c", shell, folder / "profile.env"]
    read = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert read.stdout == f"{NEW['TOKEN']}|{NEW['PIN']}|default|2"
    not_in((current / "manifest.json").read_text(encoding="utf-8"))


async def test_an_environment_gets_the_revision_that_is_pinned(gates: Gates) -> None:
    current = await gates.switch(gates.old_revision)
    assert json.loads((current / "profile" / "profile.json").read_text(encoding="utf-8"))["secrets"] == OLD
    manifest = json.loads((current / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["profile_revision_id"] == gates.old_revision


async def test_an_environment_never_gets_a_profile_that_cannot_be_read_whole(gates: Gates) -> None:
    before = await gates.switch(gates.old_revision)
    shown = before.resolve()
    await gates.platform.db["secret_values"].update_many({"key": "PIN"}, {"$set": {"ciphertext": b"damaged"}})
    with pytest.raises((VaultError, ApplicationError)) as refused:
        await gates.switch(None, fence=2)
    assert "PIN" in str(refused.value)
    not_in(str(refused.value))
    assert before.resolve() == shown
    assert not [path for path in shown.parent.parent.iterdir() if path.name.startswith(".incoming")]


async def test_a_secret_wins_over_an_apps_default_of_the_same_name(gates: Gates) -> None:
    default = {"TOKEN": {"type": "string", "value": "an app's default"}}
    await gates.platform.db["apps"].update_one({"_id": gates.shop.app["_id"]}, {"$set": {"settings.env_defaults": default}})
    current = await gates.switch(gates.old_revision)
    assert (current / "profile" / "profile.env").read_text(encoding="utf-8").count("TOKEN=") == 1
    assert "an app's default" not in (current / "profile" / "profile.env").read_text(encoding="utf-8")

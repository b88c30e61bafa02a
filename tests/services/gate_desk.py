"""Gates run as their activity is, on a real repository, database and subprocesses; the suite does what files tell it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temporalio.testing import ActivityEnvironment

from conman.activities.gates import GateActivities
from conman.config import Settings
from conman.domain.app import BRANCHES
from conman.domain.decision import NewJob, Verdict
from conman.domain.jobs import JobType
from conman.domain.messages import GateRun, GateStart
from conman.domain.outgoing import job_document
from conman.services.clock import new_id, now
from conman.services.platform import Platform
from conman.services.secrets import Secrets, seal
from conman.services.vault import Vault
from conman.settings.vault import generate_keyring
from conman.store.database import Document
from tests.services.shop import Shop

SECRET = "a secret of the profile"

SUITE = """
import json, os, sys
from pathlib import Path
told = Path(os.environ["TOLD"])
with told.joinpath("runs").open("a") as runs:
    print(os.environ["CONMAN_JOB"], file=runs)
print("the suite runs", flush=True)
Path(os.environ["MSUITE_REPORT"]).write_text(json.dumps({"checked": 3, "token": os.environ.get("TOKEN")}))
script = told / "script.py"
if script.exists():
    exec(script.read_text())
"""
"""It notes its run outside of the tree, and then does what the script there says."""


@dataclass
class GateDesk:
    """An app whose base profile has a secret and a variable, and its gates."""

    shop: Shop
    platform: Platform
    folder: Path
    keyring: str
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    """Further settings of the worker."""

    @property
    def vault(self) -> Vault:
        return Vault.of(self.keyring)

    @property
    def told(self) -> Path:
        return self.folder / "told"

    @property
    def runs(self) -> list[str]:
        """The jobs whose suite really ran, in order."""
        noted = self.told / "runs"
        return noted.read_text(encoding="utf-8").split() if noted.exists() else []

    def script(self, text: str) -> None:
        """What the suite does from now on beside passing."""
        (self.told / "script.py").write_text(text, encoding="utf-8")

    def gates(self) -> GateActivities:
        made = {"data": self.folder / "data", "msuite_command": [sys.executable, str(self.folder / "suite.py")], **self.more}
        settings = Settings(gate_memory_mb=made.pop("gate_memory_mb", 16384), **made)
        return GateActivities(settings, self.platform.db, self.platform.git, self.vault)

    async def start(self, **more: Any) -> GateStart:
        """A gate with its queued job; on the integration head if not told otherwise."""
        start = GateStart(
            job_id=new_id(),
            app_id=self.shop.app["_id"],
            job_type=more.pop("job_type", JobType.MSUITE_SUBMIT),
            entity_type="changeset",
            entity_id=more.pop("entity_id", None) or new_id(),
            commit_sha=more.pop("commit_sha", None) or await self.shop.tip(self.platform, f"{BRANCHES}main"),
            scope=more.pop("scope", "submit"),
            **more,
        )
        job = job_document(NewJob(start.job_id, start.job_type, "changeset", start.entity_id, 4), app_id=start.app_id, at=now())
        await self.platform.db["jobs"].insert_one(job)
        return start

    async def attempt(
        self, start: GateStart, number: int = 1, *, timeout: int = 60, cancel_when: Callable[[], bool] | None = None
    ) -> Verdict:
        """One attempt; with `cancel_when` it is canceled as soon as that holds."""
        environment = ActivityEnvironment()
        run = GateRun(gate=start, attempt=number, max_attempts=4, timeout_seconds=timeout)
        work: asyncio.Future[Any] = asyncio.ensure_future(environment.run(self.gates().run_gate, run))
        if cancel_when is not None:
            async with asyncio.timeout(60):
                while not cancel_when():
                    await asyncio.wait([work], timeout=0.02)
            environment.cancel()
        return await work

    async def judge(self, **more: Any) -> Verdict:
        """A new gate's verdict."""
        return await self.attempt(await self.start(**more))

    async def log(self, job_id: str, attempt: int = 1) -> list[str]:
        """The lines of an attempt."""
        query = {"job_id": job_id, "attempt": attempt}
        chunks = await self.platform.db["job_logs"].find(query).sort("first_seq", 1).to_list()
        return [line["text"] for chunk in chunks for line in chunk["lines"]]

    async def job(self, job_id: str) -> Document:
        found = await self.platform.db["jobs"].find_one({"_id": job_id})
        assert found is not None
        return found

    async def configure(self, **settings: Any) -> None:
        """Change settings of the app, by their dotted names."""
        change = {f"settings.{name.replace('__', '.')}": value for name, value in settings.items()}
        await self.platform.db["apps"].update_one({"_id": self.shop.app["_id"]}, {"$set": change})

    async def set_profile(self, secret: str = SECRET, mode: str = "one") -> None:
        """A new revision of the base profile."""
        profile_id = self.shop.app["settings"]["default_base_profile_id"]
        refs = await seal(Secrets(self.platform.db, self.vault), profile_id, {"TOKEN": secret}, {"TOKEN": new_id()})
        content = {
            "name": "Development",
            "secrets": {name: ref.model_dump() for name, ref in refs.items()},
            "env_vars": {"MODE": {"type": "string", "value": mode}, "TOLD": {"type": "string", "value": str(self.told)}},
        }
        change = {"revision_id": new_id(), "content": content}
        await self.platform.db["profiles"].update_one({"_id": profile_id}, {"$set": change}, upsert=True)


@asynccontextmanager
async def gate_desk(shop: Shop, folder: Path) -> AsyncIterator[GateDesk]:
    """A desk over an app of its own."""
    async with shop.platform() as platform:
        desk = GateDesk(shop, platform, folder, generate_keyring())
        desk.told.mkdir()
        (folder / "suite.py").write_text(SUITE, encoding="utf-8")
        shop.app["settings"]["default_base_profile_id"] = new_id()
        await platform.db["apps"].insert_one({**shop.app, "environments": []})
        await desk.set_profile()
        yield desk


def stored(row: Document) -> str:
    """A document as text, to look for what must not be in it."""
    return json.dumps(row, default=str)

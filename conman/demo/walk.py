"""The main job, step by step over HTTP: files, people, edits, review, gate, queue, release, deployment, audit."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conman.demo.child import Addresses
from conman.demo.client import Session, open_client, until
from conman.demo.edits import BROKEN, GOOD, Proposal
from conman.demo.show import DemoError, Steps
from conman.demo_data import LICENSE, dataset_files
from conman.embedded.files import write_private
from conman.git.adapter import GitError, Signature, WriteFile
from conman.git.local import LocalGit

_BRANCH = "main"
_ROLES = {"ann": "user", "rob": "reviewer", "max": "config_manager"}
_GATE_SECONDS = 400.0
_ASSEMBLY_SECONDS = 900.0
_PUBLISH_SECONDS = 120.0
_DEPLOY_SECONDS = 900.0
_PAGE = 100
_LEAST_FILES = 200
_EXCERPT = (
    "app.created",
    "file.written",
    "changeset.submitted",
    "changeset.changes_requested",
    "changeset.approved",
    "changeset.queued",
    "release.published",
    "deployment.promoted",
)


@dataclass(frozen=True)
class Result:
    """What came of the walk."""

    tag: str
    state: str
    broken_state: str
    folder: Path
    emails: list[str]
    password_file: Path


@dataclass
class Draft:
    """A proposal on its way."""

    proposal: Proposal
    path: str
    """The changeset's, below /api."""
    changeset_id: str
    written: dict[str, bytes]
    """Path → the bytes that were saved."""
    job_id: str = ""


class Walk:
    """One run of the demo on a running stack; `walk` may be called once."""

    def __init__(self, steps: Steps, stack: Addresses, data: Path, dataset: Path) -> None:
        self.steps = steps
        self.stack = stack
        self.data = data
        self.dataset = dataset
        self.run = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        self.name = f"policies-{self.run}"
        self.app = ""
        self.people: dict[str, Session] = {}

    async def walk(self) -> Result:
        """All of it; gives back only when the release is everywhere and the broken changeset was stopped. Raises `DemoError`."""
        async with AsyncExitStack() as exits:
            http = await exits.enter_async_context(open_client(self.stack.api_url))
            self.steps.heading("People, files, an app")
            password_file = await self._people(http)
            files = await self._repository()
            await self._register()
            self.steps.heading("Ann proposes three changes")
            drafts = [await self._propose(proposal) for proposal in (*GOOD, BROKEN)]
            *good, broken = drafts
            self.steps.heading("The suite and Rob look at them")
            await self._stop_broken(broken)
            for draft in good:
                await self._approve(draft)
            self.steps.heading("Max releases what passed")
            release = await self._release(good)
            folder = await self._deploy_everywhere(release)
            release = await self._check_release(release, broken)
            await self._check_folder(folder, good, broken, files)
            await self._audit()
            state = (await self.people["ann"].get(broken.path))["state"]
        emails = [self.people[name].user["email"] for name in _ROLES]
        return Result(release["tag"], release["state"], state, folder, emails, password_file)

    async def _people(self, http: Any) -> Path:
        with self.steps.step("the admin makes accounts for Ann, Rob and Max") as step:
            admin = await Session.log_in(http, "admin", self.stack.admin_email, self.stack.admin_password)
            self.people["admin"] = admin
            password = secrets.token_urlsafe(18)
            logins = {name: f"{name}+{self.run}@example.com" for name in _ROLES}
            kept = self.data / "keys" / "demo.json"
            content = json.dumps({"emails": list(logins.values()), "password": password}, indent=2) + "\n"
            await asyncio.to_thread(write_private, kept, content)
            for name, email in logins.items():
                await admin.post("/users", {"email": email, "name": name.capitalize(), "password": password})
                self.people[name] = await Session.log_in(http, name, email, password)
            step.said = "the admin made accounts for Ann, Rob and Max, who logged in"
        return kept

    async def _repository(self) -> int:
        repo = f"demo/{self.name}.git"
        with self.steps.step("put the files into a Git repository") as step:
            names = [*dataset_files(self.dataset), LICENSE]
            changes = [WriteFile(name, await asyncio.to_thread((self.dataset / name).read_bytes)) for name in names]
            author = Signature("Conman demo", "demo@example.com", datetime.now(UTC).replace(microsecond=0))
            git = LocalGit(self.data / "repositories", 1)
            try:
                await git.create_repository(repo, _BRANCH)
                await git.commit_files(
                    repo,
                    ref=f"refs/heads/{_BRANCH}",
                    expected_old=None,
                    parent=None,
                    changes=changes,
                    author=author,
                    message=f"Import the policies of {self.dataset.name}\n",
                )
            except GitError as error:
                raise DemoError(str(error)) from error
            finally:
                await asyncio.to_thread(git.close)
            step.said = f"{len(names)} files are the first commit of the new repository {repo}"
        return len(names)

    async def _register(self) -> None:
        admin = self.people["admin"]
        with self.steps.step("the admin registers the repository as an app") as step:
            app = await admin.post(
                "/apps", {"name": self.name, "repo_path": f"demo/{self.name}.git", "integration_branch": _BRANCH}
            )
            self.app = f"/apps/{app['id']}"
            for name, role in _ROLES.items():
                await admin.post(f"{self.app}/members", {"user_id": self.people[name].user["id"], "role": role})
            roles = ", ".join(f"{name.capitalize()} is {role}" for name, role in _ROLES.items())
            step.said = f"the admin registered it as app {self.name}: {roles}"

    async def _propose(self, proposal: Proposal) -> Draft:
        ann = self.people["ann"]
        with self.steps.step(f"Ann works on “{proposal.title}”") as step:
            workspace = await ann.post(f"{self.app}/workspaces", {"title": proposal.title})
            files = f"{self.app}/workspaces/{workspace['id']}/files"
            written: dict[str, bytes] = {}
            for edit in proposal.edits:
                present = await ann.get(files, path=edit.path)
                written[edit.path] = edit.apply(_text(present)).encode()
                body = {"path": edit.path, "content": base64.b64encode(written[edit.path]).decode()}
                await ann.put(files, {**body, "expected_blob_id": present["blob_id"]})
            made = await ann.post(f"{self.app}/changesets", {"workspace_id": workspace["id"], "title": proposal.title})
            draft = Draft(proposal, f"{self.app}/changesets/{made['id']}", made["id"], written)
            submitted = await ann.post(f"{draft.path}/submit")
            draft.job_id = submitted["job"]["id"]
            step.said = f"Ann edited {_files(len(written))} on a workspace of its own and submitted “{proposal.title}”"
        for edit in proposal.edits:
            self.steps.note(edit.path)
        return draft

    async def _stop_broken(self, draft: Draft) -> None:
        rob = self.people["rob"]
        path = draft.proposal.edits[0].path
        with self.steps.step(f"the gate checks “{draft.proposal.title}”") as step:
            job = await rob.job(self.app, draft.job_id, _GATE_SECONDS)
            lines = await rob.log(self.app, draft.job_id)
            found = next((line for line in lines if line.startswith(f"{path}:")), None)
            if job["state"] != "failed" or job["reason_code"] != "tests_failed" or found is None:
                raise DemoError(f"the gate ended {job['state']} ({job['reason_code']}); it ought to name {path}: {_last(lines)}")
            step.said = f"the gate stopped “{draft.proposal.title}” ({job['reason_code']}): {path}, line {found.split(':')[1]}"
        self.steps.told(found)
        with self.steps.step("Rob tries to approve it") as step:
            refusal = await rob.refused(f"{draft.path}/review", {"action": "approve"}, "gate_not_passed")
            step.said = f"Rob could not approve it: {refusal}"
        with self.steps.step("Rob requests changes") as step:
            body = {"action": "request_changes", "comment": f"The suite stops this:\n\n    {found}\n"}
            reviewed = (await rob.post(f"{draft.path}/review", body))["changeset"]
            if reviewed["state"] != "changes_requested":
                raise DemoError(f"the changeset is {reviewed['state']}, not changes_requested")
            step.said = f"Rob requested changes with that line as the comment: it is {reviewed['state']} until Ann mends it"

    async def _approve(self, draft: Draft) -> None:
        title = draft.proposal.title
        with self.steps.step(f"the gate checks “{title}”") as step:
            lines = await self._succeeded(self.people["rob"], draft.job_id, _GATE_SECONDS)
            step.said = f"the gate passed “{title}” ({_last(lines)})"
        with self.steps.step(f"Rob approves “{title}”") as step:
            seen = (await self.people["rob"].get(f"{draft.path}/diff", mode="raw"))["files"]
            approved = (await self.people["rob"].post(f"{draft.path}/review", {"action": "approve"}))["changeset"]
            if approved["state"] != "approved":
                raise DemoError(f"the changeset is {approved['state']}, not approved")
            queued = await self.people["ann"].post(f"{draft.path}/queue")
            added, removed = (sum(file[side] for file in seen) for side in ("additions", "deletions"))
            changed = f"+{added} -{removed} lines in {_files(len(seen))}"
            step.said = f"Rob read the diff ({changed}) and approved; Ann queued it at position {queued['queue_position']}"

    async def _release(self, drafts: list[Draft]) -> dict[str, Any]:
        manager = self.people["max"]
        with self.steps.step("Max composes a release") as step:
            release = await manager.post(f"{self.app}/releases", {"changeset_ids": [draft.changeset_id for draft in drafts]})
            path = f"{self.app}/releases/{release['id']}"
            step.said = f"Max composed release {release['tag']} of both"
        with self.steps.step(f"{release['tag']} is assembled") as step:
            job = (await manager.post(f"{path}/assemble"))["job"]
            await self._succeeded(manager, job["id"], _ASSEMBLY_SECONDS)
            assembled = await manager.get(path)
            if assembled["state"] != "validated":
                raise DemoError(f"the release is {assembled['state']}, not validated")
            step.said = f"both were merged, and the gate passed the result: {release['tag']} is {assembled['state']}"
        with self.steps.step(f"Max publishes {release['tag']}") as step:
            await manager.post(f"{path}/publish")

            async def look() -> dict[str, Any] | None:
                present = await manager.get(path)
                return present if present["state"] == "published" else None

            release = await until("the publication", look, _PUBLISH_SECONDS)
            step.said = f"Max published {release['tag']}: {_BRANCH} and the tag are at {release['published_sha'][:12]}"
        return release

    async def _deploy_everywhere(self, release: dict[str, Any]) -> Path:
        manager = self.people["max"]
        folder = Path()
        for number, environment in enumerate(await manager.get(f"{self.app}/environments")):
            verb, done = ("deploy", "deployed") if number == 0 else ("promote", "promoted")
            name = environment["name"]
            with self.steps.step(f"Max {verb}s {release['tag']} to {name}") as step:
                path = f"{self.app}/environments/{environment['id']}/{verb}"
                made = await manager.post(path, {"release_id": release["id"]})
                await self._succeeded(manager, made["job"]["id"], _DEPLOY_SECONDS)
                deployment = await manager.get(f"{self.app}/deployments/{made['deployment']['id']}")
                if deployment["state"] != "succeeded" or not deployment["folder"]:
                    raise DemoError(f"the deployment is {deployment['state']} ({deployment['reason_code']})")
                folder = Path(deployment["folder"])
                present = await manager.get(f"{self.app}/releases/{release['id']}")
                step.said = f"Max {done} {release['tag']} to {name}: the release is {present['state']}"
        return folder

    async def _check_release(self, release: dict[str, Any], broken: Draft) -> dict[str, Any]:
        present = await self.people["max"].get(f"{self.app}/releases/{release['id']}")
        if present["state"] != "deployed_full":
            raise DemoError(f"release {present['tag']} is {present['state']} after the last environment, not deployed_full")
        stopped = await self.people["ann"].get(broken.path)
        if stopped["state"] != "changes_requested" or stopped["release_id"] is not None:
            raise DemoError(f"the broken changeset is {stopped['state']}, not changes_requested")
        return present

    async def _check_folder(self, folder: Path, good: list[Draft], broken: Draft, files: int) -> None:
        """The files are those that were imported, with the good edits and without the broken one."""
        with self.steps.step(f"look into {folder}") as step:
            place = folder / "files"
            there = await asyncio.to_thread(lambda: sum(path.is_file() for path in place.rglob("*")))
            if there != files or there < _LEAST_FILES:
                raise DemoError(f"there are {there} files in {place}, not {files}")
            expected = {path: content for draft in good for path, content in draft.written.items()}
            for path in broken.written:
                expected[path] = await asyncio.to_thread((self.dataset / path).read_bytes)
            for path, content in expected.items():
                if await asyncio.to_thread((place / path).read_bytes) != content:
                    raise DemoError(f"{place / path} has other bytes than were approved")
            edited = _files(len(expected) - len(broken.written))
            step.said = (
                f"Production's folder has {there} files: {edited} as Ann saved them, byte for byte, the broken one as before"
            )
        for draft in good:
            self.steps.note(str(place / next(iter(draft.written))))

    async def _audit(self) -> None:
        admin = self.people["admin"]
        names = {session.user["id"]: name.capitalize() for name, session in self.people.items()}
        with self.steps.step("read the audit") as step:
            events, total = await admin.page(f"{self.app}/audit", limit=_PAGE)
            while len(events) < total:
                more, total = await admin.page(f"{self.app}/audit", limit=_PAGE, page=len(events) // _PAGE + 1)
                if not more:
                    raise DemoError(f"the audit counts {total} events and shows {len(events)}")
                events += more
            counts = Counter(f"{event['entity_type']}.{event['action']}" for event in events)
            step.said = f"the audit has {total} events of this app, of {len(counts)} kinds; some of them:"
        first = {f"{event['entity_type']}.{event['action']}": event for event in events}  # newest first: the oldest stays
        for event in sorted((first[kind] for kind in _EXCERPT if kind in first), key=lambda event: event["occurred_at"]):
            actor = names.get(event["actor_user_id"] or "", "Conman")
            self.steps.note(f"{event['occurred_at']}  {actor:<7} {event['entity_type']}.{event['action']}")

    async def _succeeded(self, session: Session, job_id: str, seconds: float) -> list[str]:
        """The log of a job that must succeed. Raises `DemoError` with its last line when it doesn't."""
        job = await session.job(self.app, job_id, seconds)
        lines = await session.log(self.app, job_id)
        if job["state"] != "succeeded":
            raise DemoError(f"{job['job_type']} {job['state']} ({job['reason_code']}): {_last(lines)}; job {job_id}")
        return lines


def _text(file: dict[str, Any]) -> str:
    """The text of a file as the API shows it."""
    if file["encoding"] == "base64":
        return base64.b64decode(file["content"]).decode()
    return file["content"]


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _last(lines: list[str]) -> str:
    return lines[-1] if lines else "the log is empty"

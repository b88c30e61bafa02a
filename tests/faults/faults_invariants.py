"""What must hold of an app at the end, whatever died on the way."""

from __future__ import annotations

import asyncio
import subprocess
from collections import Counter
from collections.abc import Iterable
from typing import Any

from faults_app import ENDED, App, Document
from faults_processes import until

from conman.domain.environment import DIRECTORY_TARGET
from conman.store.database import WITH_OUTGOING

SUBMITTED = ("created", "submitted")
QUEUED = (*SUBMITTED, "approved", "queued")
RELEASED = (*QUEUED, "released")
CONFLICTED = (*QUEUED, "conflicted")
FAILED = (*QUEUED, "needs_revalidation")
SELECTED = ("created",)
VALIDATED = ("created", "assembled", "validated")
PUBLISHED = (*VALIDATED, "published")
DEPLOYED_ONCE = (*PUBLISHED, "deployment_state_changed")
DEPLOYED = ("requested", "started", "succeeded")
PROMOTED = (*DEPLOYED, "promoted")

STATES = {
    SELECTED: "draft_release",
    SUBMITTED: "submitted",
    QUEUED: "queued",
    RELEASED: "released",
    CONFLICTED: "conflicted",
    FAILED: "needs_revalidation",
    VALIDATED: "validated",
    PUBLISHED: "published",
}
"""The events of a record in one life → the state that they end in; each happened once."""

SAID_TWICE = ("promoted", "auto_rolled_back")
"""Events of a deployment whose move another one tells too."""


async def git(app: App, *arguments: str) -> str:
    """Git's own program, which knows nothing of ours."""
    done = await asyncio.to_thread(
        subprocess.run, ["git", "-C", str(app.repository), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


async def settled(app: App) -> None:
    """Wait until nothing of the app is on its way any more."""

    async def quiet() -> bool:
        return not await _restless(app)

    await until(f"{app.name} to settle: {await _restless(app)}", quiet)


async def _restless(app: App) -> list[str]:
    found = [
        f"{c} {row['_id']} has outgoing entries" for c in WITH_OUTGOING for row in await _rows(app, c) if row.get("outgoing")
    ]
    found += [
        f"job {row['_id']} ({row['job_type']}) is {row['state']}" for row in await _rows(app, "jobs") if row["state"] not in ENDED
    ]
    for row in await _rows(app, "changesets"):
        if row["owned"]["intent"]:
            found.append(f"changeset {row['_id']} has an intent")
    for row in await _rows(app, "releases"):
        owned = row["owned"]
        if owned["edit"] or owned["publishing"] or not owned["told"] or owned["state"] == "assembling":
            found.append(f"release {row['_id']} is {owned['state']} and not done")
    for row in await _rows(app, "queues"):
        if row["owned"]["undelivered"] or not row["owned"]["sweep_started"] or row["owned"]["sweep"]:
            found.append("the queue is not done")
    return found


async def _rows(app: App, collection: str) -> list[Document]:
    query = {"_id": app.id} if collection == "apps" else {"app_id": app.id}
    return await app.db[collection].find(query).to_list()


async def check(
    app: App,
    *,
    changesets: dict[str, tuple[str, ...]],
    releases: dict[str, tuple[str, ...]] | None = None,
    deployments: dict[str, tuple[str, ...]] | None = None,
) -> None:
    """All that must hold: each named record went through its events once, and there is nothing else.

    No double tag, no lost changeset, no second deployment, nothing half done, nothing left behind.
    """
    releases, deployments = releases or {}, deployments or {}
    await settled(app)
    await _states(app, changesets, releases, deployments)
    await _audit(app, changesets | releases | deployments)
    await _history(app, changesets, releases)
    await _environments(app, deployments)
    locks = await app.db["locks"].find_one({"_id": app.id})
    held = [entry for entry in (locks["environments"] if locks else {}).values() if entry["holder"] is not None]
    assert not held, f"locks are held: {held}"
    await app.cell.nothing_of_a_gate_is_left()
    await git(app, "fsck", "--strict", "--no-progress")


async def _states(
    app: App,
    changesets: dict[str, tuple[str, ...]],
    releases: dict[str, tuple[str, ...]],
    deployments: dict[str, tuple[str, ...]],
) -> None:
    found = {row["_id"]: row["owned"]["state"] for row in await _rows(app, "changesets")}
    assert found == {one: STATES[events] for one, events in changesets.items()}
    found = {row["_id"]: row["owned"]["state"] for row in await _rows(app, "releases")}
    deployed = "deployed_full" if len(deployments) == len(app.environments) else "deployed_partial"
    assert found == {one: deployed if "deployment_state_changed" in e else STATES[e] for one, e in releases.items()}
    found = {row["_id"]: row["owned"]["state"] for row in await _rows(app, "deployments")}
    assert found == {one: end_of(events) for one, events in deployments.items()}
    queued = [row["changeset_id"] for row in (await _rows(app, "queues"))[0]["owned"]["entries"]]
    assert sorted(queued) == sorted(one for one, events in changesets.items() if events in (QUEUED, FAILED))


async def _audit(app: App, wanted: dict[str, tuple[str, ...]]) -> None:
    """One event per transition: none is missing, none is there twice, and they form one chain of states."""
    rows = [row for row in await _rows(app, "audit") if row["entity_type"] in ("changeset", "release", "deployment")]
    counted = [row for row in rows if (row["entity_type"], row["action"]) != ("changeset", "revalidated")]
    found = Counter((row["entity_id"], row["action"]) for row in counted)
    assert found == Counter((one, action) for one, actions in wanted.items() for action in actions)
    for one in {row["entity_id"] for row in rows if row["entity_type"] != "release"}:  # two of a release's events share a move
        _chain([row for row in rows if row["entity_id"] == one and row["action"] not in SAID_TWICE])


def _chain(rows: Iterable[Document]) -> None:
    """Each state is left as often as it is entered, but for the first and the last one."""
    balance: Counter[str] = Counter()
    for row in rows:
        before, after = (row["before"] or {}).get("state"), (row["after"] or {}).get("state")
        if after is not None and before != after:
            balance[after] += 1
            if before is not None:
                balance[before] -= 1
    assert sorted(count for count in balance.values() if count) == [1], balance


async def _history(app: App, changesets: dict[str, tuple[str, ...]], releases: dict[str, tuple[str, ...]]) -> None:
    """The integration branch has one merge per released changeset, and each published release one tag on its own commit."""
    rows = {row["_id"]: row["owned"] for row in await _rows(app, "releases") if "published" in releases[row["_id"]]}
    log = await git(
        app, "log", "--first-parent", "--format=%H%x09%(trailers:key=Conman-Changeset,valueonly,separator=%x2C)", "main"
    )
    commits = [line.split("\t") for line in log.splitlines()]
    merged = [trailer for _, trailer in commits if trailer]
    released = [one for one, events in changesets.items() if events == RELEASED]
    assert sorted(merged) == sorted(released), "each released changeset is merged once"
    assert len(commits) == 1 + len(released), "nothing else is on the branch"
    tags = dict(
        line.split(" ")[::-1]
        for line in (await git(app, "for-each-ref", "--format=%(objectname) %(refname:short)", "refs/tags")).splitlines()
    )
    assert tags == {owned["tag"]: owned["published_sha"] for owned in rows.values()}, "one tag per release, on its commit"
    assert set(tags.values()) <= {sha for sha, _ in commits}
    numbers = [row["tag"] for row in await _rows(app, "release_tags") if not row["release_id"].startswith("skipped:")]
    assert len(numbers) == len(releases), f"one number per release: {numbers}"


async def _environments(app: App, deployments: dict[str, tuple[str, ...]]) -> None:
    """Each environment shows its last deployment, and on disk there is one folder per deployment and no leftovers."""
    rows = {row["_id"]: row["owned"] for row in await _rows(app, "deployments")}
    for environment in app.environments:
        mine = [one for one in deployments if rows[one]["environment_id"] == environment["id"]]
        good = [one for one in mine if end_of(deployments[one]) == "succeeded"]
        shown = await app.db["environments"].find_one({"_id": environment["id"]})
        assert shown is not None
        home = app.cell.data / "environments" / app.id / environment["id"]
        if not good:
            assert shown["owned"].get("current_deployment_id") is None
            assert mine or not home.exists()
            continue
        last = max(good, key=lambda one: rows[one]["fence"])
        assert shown["owned"]["current_deployment_id"] == last
        if len(mine) > len(good) or shown["deploy_target"] != DIRECTORY_TARGET:
            continue  # the test knows what is left there
        assert len(list((home / "deployments").iterdir())) == len(mine)
        assert (home / "current").resolve().name.startswith(f"{rows[last]['fence']:06d}-")
        left = [path.name for path in home.iterdir() if path.name not in ("current", "deployments")]
        assert not left, f"left behind in {home}: {left}"


def end_of(events: tuple[str, ...]) -> str:
    """The state in which a deployment with these events has ended."""
    return next(state for state in ENDED if state in events)


def job_of(reply: Any) -> str:
    """The id of the job that a reply names."""
    return reply["job"]["id"]

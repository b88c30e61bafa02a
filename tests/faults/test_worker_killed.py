"""`kill -9` of the worker at named moments: a new one completes the command, once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import faults_invariants as invariants
import pytest
from faults_app import App
from faults_invariants import DEPLOYED, DEPLOYED_ONCE, PUBLISHED, QUEUED, RELEASED, SELECTED, SUBMITTED, VALIDATED
from faults_processes import KILLED, until

from tests.support.sizes import some


async def killed_at(app: App, point: str, command: Callable[[], Awaitable[Any]]) -> Any:
    """Send a command to a worker that dies at this point, start a new one, and give the command's answer."""
    doomed = await app.cell.worker(faults=point)
    asked = asyncio.create_task(command())
    try:
        assert await doomed.ended() == KILLED
        died = time.monotonic()
        await app.cell.worker()
        reply = await asked
    finally:
        asked.cancel()
    print(f"{point}: done {time.monotonic() - died:.1f} s after the worker died")
    return reply


async def prepared(app: App, work: Callable[[], Awaitable[Any]]) -> Any:
    """What comes before the kill, by a worker that is gone afterwards."""
    worker = await app.cell.worker()
    made = await work()
    await invariants.settled(app)
    await worker.kill()
    return made


async def submit(app: App, *, point: str) -> None:
    changeset = await app.draft()

    async def command() -> Any:
        reply = await app.submit(changeset)
        return await app.job_ends(reply["job"]["id"])

    job = await killed_at(app, point, command)
    assert job["attempt"] == (2 if point.startswith("gate.") else 1)
    first = await app.ann.get(f"{app.path}/jobs/{job['id']}/logs?attempt=1")
    assert first["ended"]
    assert [line["text"] for line in first["lines"]] == ["checking submit"]
    shown = await app.ann.get(f"{app.path}/changesets/{changeset}")
    assert (shown["current_revision"], shown["gate"]["state"]) == (1, "succeeded")
    await invariants.check(app, changesets={changeset: SUBMITTED})


async def enqueue(app: App, *, point: str) -> None:
    async def reviewed() -> str:
        made = await app.draft()
        await app.job_ends((await app.submit(made))["job"]["id"])
        await app.approve(made)
        return made

    changeset = await prepared(app, reviewed)
    await killed_at(app, point, lambda: app.enqueue(changeset))
    await invariants.check(app, changesets={changeset: QUEUED})


async def select(app: App, *, point: str) -> None:
    changeset = await prepared(app, app.queued)
    release = await killed_at(app, point, lambda: app.release([changeset]))
    await invariants.check(app, changesets={changeset: QUEUED}, releases={release: SELECTED})


async def assemble(app: App, *, point: str) -> None:
    async def drafted() -> tuple[list[str], str]:
        queued = [await app.queued(), await app.queued()]
        return queued, await app.release(queued)

    queued, release = await prepared(app, drafted)

    async def command() -> Any:
        await app.assemble(release)
        return await app.release_is(release, "validated")

    await killed_at(app, point, command)
    await invariants.check(app, changesets=dict.fromkeys(queued, QUEUED), releases={release: VALIDATED})


async def publish(app: App, *, point: str) -> None:
    """Two are released, one stays in the queue and is revalidated."""

    async def validated() -> tuple[list[str], str]:
        queued = [await app.queued(), await app.queued(), await app.queued()]
        return queued, await app.validated(queued[:2])

    queued, release = await prepared(app, validated)
    tag: str = (await app.shown_release(release))["tag"]
    beside = point.startswith("tag.")
    if beside:
        await invariants.git(app, "tag", tag, "main")
    await killed_at(app, point, lambda: app.publish(release))
    made = tag.removesuffix(".1") + ".2" if beside else tag
    assert (await app.shown_release(release))["tag"] == made
    assert (await invariants.git(app, "tag")).split() == ([tag, made] if beside else [made])
    if beside:
        await invariants.git(app, "tag", "--delete", tag)  # it is none of Conman's
    changesets = dict.fromkeys(queued[:2], RELEASED) | {queued[2]: QUEUED}
    await invariants.check(app, changesets=changesets, releases={release: PUBLISHED})
    queue = await app.db["queues"].find_one({"_id": app.id})
    assert queue is not None
    assert [(entry["status"], entry["judged_sha"]) for entry in queue["owned"]["entries"]] == [
        ("valid", (await app.shown_release(release))["published_sha"])
    ]


async def deploy(app: App, *, point: str) -> None:
    release = await prepared(app, app.published)

    async def command() -> Any:
        reply = await app.deploy(release)
        await app.job_ends(reply["job"]["id"])
        return reply["deployment"]["id"]

    deployment = await killed_at(app, point, command)
    await invariants.check(
        app,
        changesets={app.changesets[0]: RELEASED},
        releases={release: DEPLOYED_ONCE},
        deployments={deployment: DEPLOYED},
    )


async def invite(app: App, *, point: str) -> None:
    """The mail lands once, or again as the same one, and its link works."""

    async def command() -> Any:
        await app.admin.post(f"{app.path}/invites", {"email": "new@example.com", "role": "user"})

        async def done() -> Any:
            return await app.db["notifications"].find_one({"state": "done"})

        return await until("the mail", done)

    notice = await killed_at(app, point, command)
    (row,) = await app.db["mails"].find({}).to_list()
    assert (notice["counts"]["sent"], row["state"], row["attempts"]) == (1, "sent", 2 if point.startswith("mail.") else 1)
    (path,) = (app.cell.data / "outbox").iterdir()
    assert path.name == f"{row['_id']}.eml"
    token = path.read_text(encoding="ascii").partition("?token=")[2][:43]
    accepted = await app.ann.once("/auth/accept-invite", {"token": token, "name": "New", "password": "a password for tests 1"})
    assert accepted.status_code == 200, accepted.text


POINTS: dict[Callable[..., Awaitable[None]], tuple[str, ...]] = {
    submit: (
        "persist.written.changesets:1",  # in the handler's own write
        "deliver.audited:1",
        "gate.logged:1",
        "gate.kept:1",
        "persist.written.changesets:2",  # the verdict
    ),
    enqueue: (
        "persist.written.queues:1",
        "persist.written.changesets:2",  # the queue has it, the changeset does not say so
    ),
    select: (
        "persist.written.releases:1",  # asked for
        "queue.answered:1",  # the queue holds them, the release does not know
        "tag.reserved:1",
    ),
    assemble: (
        "persist.written.releases:2",  # assembling
        "compose.merged:1",
        "gate.logged:1",
        "persist.written.releases:3",  # validated
    ),
    publish: (
        "persist.written.releases:1",  # asked for
        "queue.answered:1",  # none has left it
        "tag.skipped:1",  # beside one that somebody else made
        "tag.reserved:1",
        "persist.written.releases:2",  # the intent
        "refs.begun:1",
        "refs.moved:1",
        "persist.written.releases:3",  # published
        "tell.one:1",
        "tell.one:2",
        "persist.written.queues:2",  # the new epoch
        "queue.answered:2",
        "persist.written.releases:4",  # told
        "trial.merged:1",
    ),
    deploy: (
        "begin.running:1",
        "persist.written.deployments:1",  # the first that it finds out
        "gate.logged:1",
        "switch.exported:1",
        "switch.sealed:1",
        "switch.switched:1",
        "verify.looked:1",
        "end.written:1",
        "end.unlocked:1",
    ),
    invite: ("notice.expanded:1", "mail.begun:1", "mail.given:1", "notice.ended:1"),
}
CASES: dict[str, Callable[[App], Awaitable[None]]] = {
    f"{command.__name__}-{point}": partial(command, point=point) for command, points in POINTS.items() for point in points
}


@pytest.mark.parametrize("case", some(CASES, one_in=4))
async def test_a_new_worker_completes_what_the_killed_one_began(
    case: str, side_by_side: Callable[[str], Awaitable[None]]
) -> None:
    await side_by_side(case)

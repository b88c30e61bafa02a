"""`kill -9` of the worker at step after step of a deployment: the next one goes on, and nothing is done twice or left half done.

The steps of a plain deployment, each in a case of its own, are in `test_worker_killed.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import faults_invariants as invariants
import pytest
from faults_app import App, Document
from faults_invariants import DEPLOYED, DEPLOYED_ONCE, PUBLISHED, RELEASED
from faults_processes import KILLED, until
from faults_programs import in_place

from conman.domain.times import later
from conman.services.clock import now
from tests.support.sizes import some

FAILED = ("requested", "started", "failed")
OVERWRITTEN = ("requested", "blocked_by_drift", "revalidated", "started", "drift_overwritten", "succeeded")
APPROVED = ("requested", "approved", "started", "succeeded")


async def killed_in_turn(app: App, points: Sequence[str], command: Callable[[], Awaitable[Any]]) -> Any:
    """Ask a worker that dies at the first point, follow it by one that dies at the next, and so on; the command's answer.

    What is left of it after the last point is done by a worker that lives.
    """
    doomed = await app.cell.worker(faults=points[0])
    asked = asyncio.create_task(command())
    try:
        for point in points[1:]:
            assert await doomed.ended() == KILLED
            doomed = await app.cell.worker(faults=point)
        assert await doomed.ended() == KILLED
        await app.cell.worker()
        return await asked
    finally:
        asked.cancel()


async def deployed(app: App, release: str, state: str = "succeeded", **more: Any) -> Document:
    """Ask for a deployment to the first environment and wait for its end; its record."""
    reply = await app.deploy(release, **more)
    await app.job_ends(reply["job"]["id"], state)
    return await app.deployment(reply["deployment"]["id"])


async def _gone(app: App) -> None:
    """No worker is left."""
    for process in app.cell.processes:
        if process is not app.cell.api:
            await process.kill()


async def in_line(app: App) -> None:
    """Who waits for the lock gets it once, though the worker dies each time that it has asked for it."""
    worker = await app.cell.worker()
    release = await app.published()
    await worker.kill()

    async def command() -> list[Document]:
        gate = app.hold("deploy")
        ahead = await app.deploy(release)
        await app.deployment_is(ahead["deployment"]["id"], "running", "gate")
        behind = await app.deploy(release, wait=True)
        gate.unlink()
        for reply in (ahead, behind):
            await app.job_ends(reply["job"]["id"])
        return [await app.deployment(reply["deployment"]["id"]) for reply in (ahead, behind)]

    ended = await killed_in_turn(app, ("lock.taken:1", "lock.taken:2"), command)
    assert [one["fence"] for one in ended] == [1, 2]
    await invariants.check(
        app,
        changesets={app.changesets[0]: RELEASED},
        releases={release: DEPLOYED_ONCE},
        deployments=dict.fromkeys(app.deployments, DEPLOYED),
    )


async def scheduled(app: App) -> None:
    """A start time that comes while no worker lives is kept by the next one."""
    worker = await app.cell.worker()
    release = await app.published()
    not_before = later(now(), timedelta(seconds=4))
    reply = await app.deploy(release, not_before=not_before)
    await app.deployment_is(reply["deployment"]["id"], "pending", "schedule")
    await worker.kill()

    async def due() -> bool:
        return now() > not_before

    await until("the start time", due)
    assert (await app.deployment(reply["deployment"]["id"]))["state"] == "pending"
    await app.cell.worker()
    ended = await app.job_ends(reply["job"]["id"])
    assert ended["started_at"] >= not_before
    await invariants.check(
        app,
        changesets={app.changesets[0]: RELEASED},
        releases={release: DEPLOYED_ONCE},
        deployments={reply["deployment"]["id"]: DEPLOYED},
    )


async def approvals(app: App) -> None:
    """A vote whose write the worker does not survive is given once."""
    worker = await app.cell.worker()
    release = await app.published()
    await app.environment_is(0, required_approvals={"count": 2, "role": "reviewer"})
    reply = await app.deploy(release)
    deployment = reply["deployment"]["id"]
    await app.deployment_is(deployment, "pending", "approvals")
    await worker.kill()

    async def command() -> Any:
        return await app.rob.post(f"{app.path}/deployments/{deployment}/approve")

    shown = await killed_in_turn(app, ("persist.written.deployments:1",), command)
    assert len(shown["approvals"]) == 2
    await app.job_ends(reply["job"]["id"])
    await invariants.check(
        app,
        changesets={app.changesets[0]: RELEASED},
        releases={release: DEPLOYED_ONCE},
        deployments={deployment: APPROVED},
    )


async def drift(app: App) -> None:
    """A drift is told once, and what somebody decides about it is carried out, whoever dies meanwhile."""
    worker = await app.cell.worker()
    await app.profile_is(0, env_vars={"COLOR": {"type": "string", "value": "blue"}})
    release = await app.published()
    first = await deployed(app, release)
    await worker.kill()
    home = app.cell.data / "environments" / app.id / app.environments[0]["id"]
    file = home / "current" / "profile" / "profile.env"
    file.write_text(file.read_text(encoding="utf-8").replace("blue", "red"), encoding="utf-8")

    async def blocked() -> Document:
        reply = await app.deploy(release)

        async def waits() -> Document | None:
            found = await app.deployment(reply["deployment"]["id"])
            return found if found["drift_waits_until"] is not None else None

        return await until("the deployment to be blocked by drift", waits)

    second = await killed_in_turn(app, ("drift.noted:1",), blocked)
    assert [(item["kind"], item["key"], item["observed"]) for item in second["drift_report"]] == [("env_var", "COLOR", "red")], (
        second["waiting_for"]
    )
    await _gone(app)

    async def overwritten() -> Any:
        await app.max.post(f"{app.path}/deployments/{second['id']}/revalidate", {"overwrite": True})
        return await app.job_ends(second["job_id"])

    await killed_in_turn(app, ("persist.written.deployments:1", "gate.logged:1", "switch.switched:1"), overwritten)
    assert "blue" in file.read_text(encoding="utf-8")
    detected = await app.db["audit"].count_documents({"entity_id": app.environments[0]["id"], "action": "drift_detected"})
    assert detected == 1
    await invariants.check(
        app,
        changesets={app.changesets[0]: RELEASED},
        releases={release: DEPLOYED_ONCE},
        deployments={first["id"]: DEPLOYED, second["id"]: OVERWRITTEN},
    )


async def migrations(app: App) -> None:
    """One that has a result is not run again; one that started and has none is not either, until somebody asks for it anew."""
    worker = await app.cell.worker()
    await app.profile_is(0, migrations={"repo_paths": ["migrations"], "command_ref": "migrate"})
    release = await app.published("migrations", "migrations")
    await worker.kill()
    lost: list[Document] = []
    for point in ("migration.begun:1", "migration.ran:1"):
        lost.append(await killed_in_turn(app, (point,), lambda: deployed(app, release, "failed")))
        await _gone(app)
    assert [one["reason_code"] for one in lost] == ["infrastructure"] * 2
    assert _runs(app) == ["migrate e1.json"]
    good = await killed_in_turn(app, ("migration.recorded:1", "migration.recorded:1"), lambda: deployed(app, release))
    assert _runs(app) == ["migrate e1.json"] * 2 + ["migrate e2.json"]
    await invariants.check(
        app,
        changesets=dict.fromkeys(app.changesets, RELEASED),
        releases={release: DEPLOYED_ONCE},
        deployments={lost[0]["id"]: FAILED, lost[1]["id"]: FAILED, good["id"]: DEPLOYED},
    )


def _runs(app: App) -> list[str]:
    """What the operator's programs did."""
    path = app.cell.programs / "runs"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


async def program(app: App) -> None:
    """A target's program is run again under the same fence when its worker dies or it is killed half-way; what it says itself
    is the end of its deployment, and harms no later one."""
    worker = await app.cell.worker()
    await app.environment_is(0, deploy_target="box", health_command="probe")
    release = await app.published()
    await worker.kill()
    first = await killed_in_turn(
        app, ("target.exported:1", "target.deployed:1", "verify.looked:1", "end.environment:1"), lambda: deployed(app, release)
    )
    home = app.cell.programs / "box" / app.environments[0]["id"]
    assert in_place(home)["fence"] == first["fence"] == 1
    tag = (await app.shown_release(release))["tag"]
    assert _runs(app) == [f"deploy {tag} under 1"] * 2

    (app.cell.programs / "fail-deploy").touch()
    half = await deployed(app, release, "failed")
    assert "exit code 3" in half["message"]
    assert in_place(home)["fence"] == 1, "what was in place stays"
    (app.cell.programs / "die-deploy").touch()
    last = await deployed(app, release)
    assert (in_place(home)["fence"], last["fence"]) == (3, 3)
    assert not (home / in_place(home)["folder"] / "half").exists()
    assert _runs(app)[2:] == [f"deploy {tag} under 2"] + [f"deploy {tag} under 3"] * 2
    await invariants.check(
        app,
        changesets={app.changesets[0]: RELEASED},
        releases={release: DEPLOYED_ONCE},
        deployments={first["id"]: DEPLOYED, half["id"]: FAILED, last["id"]: DEPLOYED},
    )


async def folder(app: App) -> None:
    """While the environment's folder can't be written the switch is tried again, and succeeds once it can."""
    await app.cell.worker()
    release = await app.published()
    home = app.cell.data / "environments" / app.id / app.environments[0]["id"]
    home.parent.mkdir(parents=True)
    home.write_text("a file where the folder belongs", encoding="utf-8")
    reply = await app.deploy(release)

    async def told() -> bool:
        log = await app.max.get(f"{app.path}/jobs/{reply['job']['id']}/logs")
        return any("folder can't be used" in line["text"] for line in log["lines"])

    await until("the switch to fail", told)
    home.unlink()
    await app.job_ends(reply["job"]["id"])
    await invariants.check(
        app,
        changesets={app.changesets[0]: RELEASED},
        releases={release: DEPLOYED_ONCE},
        deployments={reply["deployment"]["id"]: DEPLOYED},
    )


async def auto_rollback(app: App) -> None:
    """The way back is one process with the deployment that failed: at each step the next worker goes on with it.

    It takes about a minute, since each death costs the time in which it is noticed.
    """
    worker = await app.cell.worker()
    await app.environment_is(0, health_command="probe", auto_rollback=True)
    good, bad = await app.published(), await app.published()
    tags = [(await app.shown_release(release))["tag"] for release in (good, bad)]
    (app.cell.programs / "unhealthy").write_text(tags[1], encoding="utf-8")
    first = await deployed(app, good)
    await worker.kill()
    points = (
        "switch.switched:1",
        "verify.looked:1",  # it is unhealthy, and nobody knows
        "switch.exported:1",  # of the release that is put back
        "switch.switched:1",
        "verify.looked:1",
        "end.environment:1",
        "end.written:1",
        "end.unlocked:1",
    )
    failed = await killed_in_turn(app, points, lambda: deployed(app, bad, "failed"))
    home = app.cell.data / "environments" / app.id / app.environments[0]["id"]
    assert (home / "current").resolve().name == f"000003-{tags[0]}"
    assert sorted(path.name for path in home.iterdir()) == ["current", "deployments"]
    shown = (await app.max.get(f"{app.path}/environments"))[0]
    assert (shown["current_release_id"], shown["bad_release_ids"]) == (good, [bad])
    refused = await app.max.once(app.deploy_path(), {"release_id": bad})
    assert refused.json()["error"]["code"] == "marked_bad"
    await invariants.check(
        app,
        changesets=dict.fromkeys(app.changesets, RELEASED),
        releases={good: DEPLOYED_ONCE, bad: PUBLISHED},
        deployments={first["id"]: DEPLOYED, failed["id"]: (*FAILED, "auto_rolled_back")},
    )


async def rollback(app: App) -> None:
    """A release is undone by one commit and one new release, and that goes out once, whoever dies between the steps."""
    worker = await app.cell.worker()
    good, bad = await app.published(), await app.published()
    await deployed(app, good)
    last = await deployed(app, bad)
    await worker.kill()

    async def command() -> Document:
        path = f"{app.path}/environments/{app.environments[0]['id']}/rollback"
        reply = await app.max.post(path, {"release_id": bad, "mode": "revert_and_release"})
        await app.job_ends(reply["job"]["id"])
        return await app.deployment(reply["deployment"]["id"])

    points = (
        "revert.overrides_kept:1",
        "revert.committed:1",
        "refs.moved:1",
        "revert.undone:1",
        "revert.stepped:1",
        "revert.told:1",
        "switch.switched:1",
        "end.written:1",
    )
    undoing = await killed_in_turn(app, points, command)
    await invariants.settled(app)
    assert (undoing["state"], undoing["kind"], undoing["fence"]) == ("succeeded", "rollback", last["fence"] + 1)
    releases = {row["_id"]: row["owned"] async for row in app.db["releases"].find({"app_id": app.id})}
    assert sorted(releases) == sorted((good, bad, undoing["release_id"])), "one release undoes it"
    made = releases[undoing["release_id"]]
    assert (made["reverts_release_id"], releases[bad]["state"]) == (bad, "rolled_back")
    subjects = (await invariants.git(app, "log", "--first-parent", "--format=%s", "main")).splitlines()
    assert [subject for subject in subjects if subject.startswith("Undo")] == [f"Undo {releases[bad]['tag']}"] == subjects[:1]
    assert (await invariants.git(app, "rev-parse", "main", made["tag"])).split() == [made["published_sha"]] * 2
    for one in (bad, undoing["release_id"], undoing["id"]):
        actions = [row["action"] async for row in app.db["audit"].find({"entity_id": one})]
        assert len(actions) == len(set(actions)), actions
    locks = await app.db["locks"].find_one({"_id": app.id})
    assert locks is not None
    assert locks["environments"][app.environments[0]["id"]]["holder"] is None
    await app.cell.nothing_of_a_gate_is_left()
    await invariants.git(app, "fsck", "--strict", "--no-progress")


CASES: dict[str, Callable[[App], Awaitable[None]]] = {
    case.__name__: case for case in (auto_rollback, rollback, program, drift, migrations, in_line, approvals, scheduled, folder)
}


@pytest.mark.parametrize("case", some(CASES, one_in=3))
async def test_a_deployment_survives_the_death_of_its_worker_at_each_step(
    case: str, side_by_side: Callable[[str], Awaitable[None]]
) -> None:
    await side_by_side(case)

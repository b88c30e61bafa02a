"""The whole Temporal database is lost: what waited goes on waiting, what ran has failed (`durability.md` 20)."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import faults_invariants as invariants
from faults_app import App, Document
from faults_invariants import DEPLOYED, DEPLOYED_ONCE, PROMOTED, RELEASED
from faults_processes import World, until

from conman.domain.times import later
from conman.services.clock import now


async def lose_temporal(world: World, app: App) -> None:
    """Every workflow and schedule of the server is gone; the processes are started anew, as after an upgrade of its schema."""
    assert app.cell.api is not None
    for process in app.cell.processes:
        await process.kill()
    for path in _files(world):
        path.unlink()
    await world.kill_server("temporal")

    async def registered() -> bool:
        with suppress(RuntimeError):  # it does not listen yet
            await app.cell.register_namespace()
            return True
        return False

    await until("the new Temporal", registered)
    await app.cell.start_api()
    await app.cell.worker()


def _files(world: World) -> list[Path]:
    found = sorted((world.data / "temporal").glob("*.db*"))
    assert found
    return found


KEPT = (
    "state",
    "phase",
    "approvals",
    "approvals_required",
    "approvals_expire_at",
    "exceptional_reasons",
    "not_before",
    "fence",
    "job_id",
)


async def test_pending_deployments_go_on_waiting_for_what_they_waited_for_and_a_running_one_has_failed(
    world: World, app: App
) -> None:
    await app.cell.worker()
    first = await app.published()
    done = await app.deploy(first)
    await app.job_ends(done["job"]["id"])
    second = await app.published()
    gate = app.hold("deploy")
    running = await app.deploy(first, 1)
    await app.deployment_is(running["deployment"]["id"], "running", "gate")
    # Exceptional, since another one runs or a stage is skipped: each needs two approvals, and has its requester's.
    voted = (await app.deploy(second))["deployment"]["id"]
    timed = (await app.deploy(second, 2, skip_stage=True, not_before=later(now(), timedelta(hours=2))))["deployment"]["id"]
    in_line = (await app.deploy(first, 1, wait=True))["deployment"]["id"]
    before = [
        await app.deployment_is(voted, "pending", "approvals"),
        await app.deployment_is(timed, "pending", "schedule"),
        await app.deployment_is(in_line, "pending", "lock"),
    ]
    assert [(len(one["approvals"]), one["approvals_required"]) for one in before] == [(1, 2), (1, 2), (0, 0)]

    await lose_temporal(world, app)
    assert [_kept(await app.deployment(one["id"])) for one in before] == [_kept(one) for one in before]
    gate.unlink()
    reconcile = await app.cell.conman("reconcile", "--json")
    assert await reconcile.ended() == 0, reconcile.said()

    lost = await app.job_ends(running["job"]["id"], "failed")
    assert lost["reason_code"] == "infrastructure"
    await app.job_ends(before[2]["job_id"])  # the lock was its next
    assert [_kept(await app.deployment(one["id"])) for one in before[:2]] == [_kept(one) for one in before[:2]]
    await app.rob.post(f"{app.path}/deployments/{voted}/approve")
    await app.job_ends(before[0]["job_id"])
    await app.max.post(f"{app.path}/deployments/{timed}/cancel")
    await invariants.check(
        app,
        changesets=dict.fromkeys(app.changesets, RELEASED),
        releases=dict.fromkeys((first, second), DEPLOYED_ONCE),
        deployments={
            done["deployment"]["id"]: DEPLOYED,
            running["deployment"]["id"]: ("requested", "started", "failed"),
            voted: ("requested", "approved", "started", "succeeded"),
            timed: ("requested", "canceled"),
            in_line: PROMOTED,
        },
    )


def _kept(deployment: Document) -> Document:
    return {name: deployment[name] for name in KEPT}

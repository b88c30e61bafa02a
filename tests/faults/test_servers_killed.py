"""`kill -9` of Temporal and of the database in the middle of submit, assemble, publish and deploy: each completes, once."""

from __future__ import annotations

import asyncio

import faults_invariants as invariants
import pytest
from faults_app import App
from faults_invariants import DEPLOYED, DEPLOYED_ONCE, RELEASED
from faults_processes import World, until


async def killed_while_held(world: World, app: App, server: str, scope: str, job_type: str) -> None:
    """Kill a server while a gate of this scope runs, then let the gate go on."""

    async def runs() -> bool:
        return await app.db["jobs"].find_one({"job_type": job_type, "state": "running"}) is not None

    held = app.cell.holds / f"{app.name}-{scope}"
    await until(f"a {scope} gate to run", runs)
    await world.kill_server(server)
    held.unlink()


@pytest.mark.parametrize("server", ["temporal", "mongo"])
async def test_everything_completes_once_although_a_server_dies_in_the_middle(world: World, app: App, server: str) -> None:
    await app.cell.worker()
    app.hold("submit")
    changeset = await app.draft()
    reply = await app.submit(changeset)
    await killed_while_held(world, app, server, "submit", "msuite_submit")
    await app.job_ends(reply["job"]["id"])
    await app.approve(changeset)
    await app.enqueue(changeset)

    release = await app.release([changeset])
    app.hold("release")
    await app.assemble(release)
    await killed_while_held(world, app, server, "release", "msuite_merge")
    await app.release_is(release, "validated")

    publishing = asyncio.create_task(app.publish(release))
    await asyncio.wait([publishing], timeout=0.05)
    await world.kill_server(server)
    assert (await publishing)["release"]["state"] == "published"

    app.hold("deploy")
    made = await app.deploy(release)
    await killed_while_held(world, app, server, "deploy", "msuite_deploy")
    await app.job_ends(made["job"]["id"])
    await invariants.check(
        app,
        changesets={changeset: RELEASED},
        releases={release: DEPLOYED_ONCE},
        deployments={made["deployment"]["id"]: DEPLOYED},
    )

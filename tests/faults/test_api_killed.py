"""`kill -9` of the API at named moments: the same request again completes, and what nobody repeats is picked up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import faults_invariants as invariants
import httpx
import pytest
from faults_app import App
from faults_invariants import DEPLOYED, DEPLOYED_ONCE, PUBLISHED, RELEASED, SUBMITTED
from faults_processes import KILLED, until
from temporalio.client import Client

from conman.domain.times import later
from conman.worker import UPKEEP_ID


async def killed_at(app: App, point: str, ask: Callable[[], Awaitable[httpx.Response]]) -> None:
    """Send one request to an API that dies at this point; back when a new one answers."""
    doomed = await app.cell.restart_api(faults=point)
    with pytest.raises(httpx.TransportError):
        await ask()
    assert await doomed.ended() == KILLED
    await app.cell.start_api()


async def submit(app: App, *, point: str, repeats: bool) -> None:
    """Between the Git work and the update nothing is submitted; the files are safe and the request can be made again."""
    await app.cell.worker()
    changeset = await app.draft()
    key = uuid4().hex if repeats else None
    path = f"{app.path}/changesets/{changeset}/submit"
    await killed_at(app, point, lambda: app.ann.once(path, key=key))
    shown = await app.ann.get(f"{app.path}/changesets/{changeset}")
    assert (shown["state"], shown["current_revision"]) == ("draft", 0)
    reply = await app.submit(changeset, key=key)
    await app.job_ends(reply["job"]["id"])
    again = await app.submit(changeset, key=key) if repeats else reply
    assert again["job"]["id"] == reply["job"]["id"]
    assert again["revision"] == reply["revision"]
    await invariants.check(app, changesets={changeset: SUBMITTED})


async def deployed_once(app: App, release: str, deployment: str) -> None:
    async def ended() -> bool:
        return (await app.deployment(deployment))["state"] == "succeeded"

    await until(f"deployment {deployment} to succeed", ended)
    await invariants.check(
        app,
        changesets={app.changesets[0]: RELEASED},
        releases={release: DEPLOYED_ONCE},
        deployments={deployment: DEPLOYED},
    )


async def deploy_repeated(app: App, *, point: str) -> None:
    """The same request again finds its own lock and its own deployment."""
    await app.cell.worker()
    release = await app.published()
    key = uuid4().hex
    await killed_at(app, point, lambda: app.max.once(app.deploy_path(), {"release_id": release}, key=key))
    reply = await app.deploy(release, key=key)
    again = await app.deploy(release, key=key)
    assert again["deployment"]["id"] == reply["deployment"]["id"]
    assert reply["deployment"]["fence"] == 1
    await deployed_once(app, release, reply["deployment"]["id"])


async def _forgotten(app: App) -> tuple[str, str]:
    """A deployment whose record is there and whose workflow is not, and nobody who asks again."""
    await app.cell.worker()
    release = await app.published()
    await killed_at(app, "deploy.inserted:1", lambda: app.max.once(app.deploy_path(), {"release_id": release}))
    row = await app.db["deployments"].find_one({"app_id": app.id})
    assert row is not None and row["owned"]["state"] == "pending"
    return release, row["_id"]


async def deploy_picked_up_by_reconcile(app: App) -> None:
    release, deployment = await _forgotten(app)
    reconcile = await app.cell.conman("reconcile", "--json")
    assert await reconcile.ended() == 0
    assert '"started": 1' in reconcile.said(), reconcile.said()
    await deployed_once(app, release, deployment)


async def deploy_picked_up_by_the_schedule(app: App) -> None:
    """Triggered, so that the test need not wait for the minute."""
    release, deployment = await _forgotten(app)
    client = await Client.connect(app.cell.world.stack.temporal_address, namespace=app.cell.name)
    await client.get_schedule_handle(UPKEEP_ID).trigger()
    await deployed_once(app, release, deployment)


async def lock_without_a_deployment(app: App) -> None:
    """A lock whose holder never came to be is free after a minute; until then it is refused with the holder's id."""
    await app.cell.worker()
    release = await app.published()
    await killed_at(app, "deploy.locked:1", lambda: app.max.once(app.deploy_path(), {"release_id": release}))
    refused = await app.max.once(app.deploy_path(), {"release_id": release})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "environment_locked")
    field = f"environments.{app.environments[0]['id']}.holder.since"
    locks = await app.db["locks"].find_one({"_id": app.id})
    assert locks is not None
    since = locks["environments"][app.environments[0]["id"]]["holder"]["since"]
    await app.db["locks"].update_one({"_id": app.id}, {"$set": {field: later(since, -timedelta(minutes=2))}})
    reply = await app.deploy(release)
    assert reply["deployment"]["fence"] == 2
    await deployed_once(app, release, reply["deployment"]["id"])


async def publish_and_assemble_without_an_api(app: App) -> None:
    """What was asked for goes on; the same request again, later, gets the answer that the first one would have had."""
    await app.cell.worker()
    release = await app.release([await app.queued()])
    held = app.hold("release")
    await app.assemble(release)

    async def gate() -> bool:
        return await app.db["jobs"].find_one({"job_type": "msuite_merge", "state": "running"}) is not None

    await until("the release gate to run", gate)
    assert app.cell.api is not None
    await app.cell.api.kill()
    held.unlink()
    await app.cell.start_api()
    await app.release_is(release, "validated")

    key = uuid4().hex
    path = f"{app.path}/releases/{release}/publish"
    asked = asyncio.create_task(app.max.once(path, key=key))

    async def begun() -> Any:
        row = await app.db["releases"].find_one({"_id": release})
        return row is not None and (row["owned"]["publishing"] or row["owned"]["published_sha"])

    await until("the publish to begin", begun)
    await app.cell.api.kill()
    await asyncio.gather(asked, return_exceptions=True)
    await app.cell.start_api()
    reply = await app.max.post(path, key=key)
    assert reply["release"]["state"] == "published"
    await invariants.check(app, changesets={app.changesets[0]: RELEASED}, releases={release: PUBLISHED})


async def temp_env_repeated(app: App, *, point: str) -> None:
    """The same request again finds its own temp env, or makes it from the commit that the first one made."""
    await app.cell.worker()
    source = {"kind": "changeset", "source_id": await app.draft()}
    key, path = uuid4().hex, f"{app.path}/temp-envs"
    await killed_at(app, point, lambda: app.ann.once(path, source, key=key))
    made = await app.ann.post(path, source, key=key)
    await app.job_ends(made["job"]["id"])
    again = await app.ann.post(path, source, key=key)
    assert again["temp_env"]["id"] == made["temp_env"]["id"]
    assert await app.db["temp_envs"].count_documents({}) == 1
    assert await app.db["audit"].count_documents({"action": "checkpoint"}) == 1


async def temp_env_picked_up_by_reconcile(app: App) -> None:
    """A temp env whose record is there and whose workflow is not, and nobody who asks again."""
    await app.cell.worker()
    source = {"kind": "changeset", "source_id": await app.draft()}
    await killed_at(app, "temp_env.inserted:1", lambda: app.ann.once(f"{app.path}/temp-envs", source))
    row = await app.db["temp_envs"].find_one({"app_id": app.id})
    assert row is not None and row["owned"]["state"] == "provisioning"
    reconcile = await app.cell.conman("reconcile", "--json")
    assert await reconcile.ended() == 0
    assert '"started": 1' in reconcile.said(), reconcile.said()
    await app.job_ends(row["owned"]["job_id"])


CASES: dict[str, Callable[[App], Awaitable[None]]] = {
    "submit-committed-repeated": partial(submit, point="submit.committed:1", repeats=True),
    "submit-frozen-repeated": partial(submit, point="submit.frozen:1", repeats=True),
    "submit-frozen-asked-anew": partial(submit, point="submit.frozen:1", repeats=False),
    "deploy-locked-repeated": partial(deploy_repeated, point="deploy.locked:1"),
    "deploy-inserted-repeated": partial(deploy_repeated, point="deploy.inserted:1"),
    "deploy-inserted-reconciled": deploy_picked_up_by_reconcile,
    "deploy-inserted-scheduled": deploy_picked_up_by_the_schedule,
    "deploy-locked-abandoned": lock_without_a_deployment,
    "assemble-and-publish": publish_and_assemble_without_an_api,
    "temp-env-kept-repeated": partial(temp_env_repeated, point="temp_env.kept:1"),
    "temp-env-inserted-repeated": partial(temp_env_repeated, point="temp_env.inserted:1"),
    "temp-env-inserted-reconciled": temp_env_picked_up_by_reconcile,
}


@pytest.mark.parametrize("case", CASES)
async def test_what_a_killed_api_was_asked_for(case: str, side_by_side: Callable[[str], Awaitable[None]]) -> None:
    await side_by_side(case)

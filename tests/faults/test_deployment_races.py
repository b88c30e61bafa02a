"""Two API processes that race for one environment: exactly one deployment holds it, ever (`spec.md` 12).

Here over HTTP, with all that a request does; a hundred races on the lock alone are in `tests/store/test_lock_races.py`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from uuid import uuid4

import faults_invariants as invariants
import httpx
from faults_app import App, Person
from faults_invariants import DEPLOYED, DEPLOYED_ONCE, RELEASED
from faults_processes import SECONDS

from tests.support.plain_http import NO_TLS
from tests.support.sizes import size

ROUNDS = size(5, 15)
EACH = 2
"""Requests that each process gets at once."""


async def test_of_two_apis_that_race_for_an_environment_exactly_one_request_wins_each_time(app: App) -> None:
    """Each round's deployment runs to its end."""
    await app.cell.worker()
    release = await app.published()
    path, wanted = app.deploy_path(), {"release_id": release}
    async with httpx.AsyncClient(
        base_url=f"{await app.cell.another_api()}/api", trust_env=False, timeout=SECONDS, verify=NO_TLS
    ) as client:
        there = Person(client, app.max.headers["Authorization"].removeprefix("Bearer "))
        for number in range(1, ROUNDS + 1):
            gate = app.hold("deploy")
            asked = [(here, elsewhere, uuid4().hex) for here, elsewhere in ((app.max, there), (there, app.max)) * EACH]
            answers = await asyncio.gather(*(here.once(path, wanted, key=key) for here, _, key in asked))
            assert Counter(answer.status_code for answer in answers) == {202: 1, 409: len(asked) - 1}
            won = next(answer.json()["data"] for answer in answers if answer.status_code == httpx.codes.ACCEPTED)
            winner = won["deployment"]["id"]
            refusals = [answer.json()["error"] for answer in answers if answer.status_code == httpx.codes.CONFLICT]
            told = {(refusal["code"], refusal["details"]["deployment_id"]) for refusal in refusals}
            assert told == {("environment_locked", winner)}
            assert won["deployment"]["fence"] == number
            repeats = await asyncio.gather(*(elsewhere.once(path, wanted, key=key) for _, elsewhere, key in asked))
            assert [answer.status_code for answer in repeats] == [answer.status_code for answer in answers]
            assert [a.json()["data"]["deployment"]["id"] for a in repeats if a.status_code == httpx.codes.ACCEPTED] == [winner]
            app.deployments.append(winner)
            gate.unlink()
            await app.job_ends(won["job"]["id"])
    await invariants.check(
        app,
        changesets={app.changesets[0]: RELEASED},
        releases={release: DEPLOYED_ONCE},
        deployments=dict.fromkeys(app.deployments, DEPLOYED),
    )

"""Migrations in an environment: once, in order, recorded before and after, and right after a crash anywhere (`spec.md` 9, 12)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from conman.domain.messages import SwitchRequest
from conman.services import migrations
from tests.services.places import TOKEN, Site
from tests.services.shop import Shop
from tests.support.crashes import crash_at

PROFILE = {
    "env_vars": {"MODE": {"type": "string", "value": "calm"}},
    "secrets": {"TOKEN": TOKEN},
    "migrations": {"repo_paths": ["m", "seed"], "command_ref": "migrate", "applied_state_ref": "file:state/applied.txt"},
}
MIGRATE = """
path = sys.argv[-1]
name = os.environ["CONMAN_MIGRATION"]
assert path == os.path.join(os.getcwd(), name)
text = open(path).read()
print(name, text, os.environ["MODE"], os.environ["TOKEN"])
with open(__file__ + ".ran", "a") as ran:
    print(name, file=ran)
if text.startswith("fail"):
    sys.exit(4)
state = os.environ["CONMAN_APPLIED_STATE"]
os.makedirs(os.path.dirname(state), exist_ok=True)
with open(state, "a") as applied:
    print(name, file=applied)
"""
FILES = {"m/10-c.js": "ten", "m/2-b.js": "two", "m/1-a.js": "one", "seed/data.js": "seed", "readme.md": "no migration"}
IN_ORDER = ["m/1-a.js", "m/2-b.js", "m/10-c.js", "seed/data.js"]


@pytest.fixture
async def site(shop: Shop, tmp_path: Path) -> AsyncIterator[Site]:
    async with shop.platform() as platform:
        made = Site(shop, platform, tmp_path)
        await made.define()
        made.program("migrate", "migration", MIGRATE)
        yield made


async def asked(site: Site, files: dict[str, str] | None = None, *, at: str | None = None) -> SwitchRequest:
    return await site.ask(await site.commit(FILES if files is None else files), await site.revise(**PROFILE), at=at)


def ran(site: Site) -> list[str]:
    file = site.folder / "migrate.py.ran"
    return file.read_text().splitlines() if file.exists() else []


async def recorded(site: Site) -> list[dict[str, Any]]:
    return await site.db["migration_executions"].find({}).sort("_id", 1).to_list()


async def test_they_run_once_in_order_and_are_recorded_with_their_lines_of_the_log(site: Site) -> None:
    request = await asked(site)
    reply = await site.migrate(request)
    assert (reply.ran, reply.skipped, reply.failed) == (4, 0, None)
    assert ran(site) == IN_ORDER
    rows = await recorded(site)
    assert [(row["name"], row["state"], row["exit_code"]) for row in rows] == [(name, "succeeded", 0) for name in IN_ORDER]
    first = rows[0]
    assert (first["deployment_id"], first["release_id"], first["command"]) == (
        request.deployment_id,
        request.release_id,
        "migrate",
    )
    assert first["profile_revision_id"] == request.profile_revision_id
    assert first["started_at"] <= first["ended_at"]
    lines = (await site.log(request)).splitlines()
    own = lines[first["log"]["first_seq"] - 1 : first["log"]["last_seq"]]
    assert own == ["migration m/1-a.js starts", "m/1-a.js one calm ****", "The migration m/1-a.js succeeded."]
    assert site.scratch == []


async def test_what_ran_here_does_not_run_again_and_what_is_new_does(site: Site) -> None:
    await site.migrate(await asked(site))
    reply = await site.migrate(await asked(site, {"m/3-new.js": "three", "m/1-a.js": "another one"}))
    assert (reply.ran, reply.skipped) == (1, 4)
    assert reply.message == "Applied here with other bytes than the release has, and not run again: m/1-a.js."
    assert ran(site) == [*IN_ORDER, "m/3-new.js"]


async def test_a_repeat_finds_what_is_done(site: Site) -> None:
    request = await asked(site)
    await site.migrate(request)
    before = await recorded(site)
    reply = await site.migrate(request)
    assert (reply.ran, reply.skipped) == (0, 4)
    assert await recorded(site) == before


async def test_a_failed_one_stops_the_rest_and_the_next_deployment_tries_it_again(site: Site) -> None:
    request = await asked(site, {**FILES, "m/2-b.js": "fail"})
    for _ in range(2):
        reply = await site.migrate(request)
        assert (reply.failed, reply.infrastructure) == ("m/2-b.js", False)
        assert reply.message == "The migration m/2-b.js failed with exit code 4; see the job's log."
    assert ran(site) == ["m/1-a.js", "m/2-b.js"]
    reply = await site.migrate(await asked(site, {"m/2-b.js": "mended"}))
    assert (reply.ran, reply.skipped, reply.failed) == (3, 1, None)
    assert ran(site) == ["m/1-a.js", "m/2-b.js", "m/2-b.js", "m/10-c.js", "seed/data.js"]


@pytest.mark.parametrize("crash", ["migration.begun", "migration.ran"])
async def test_one_without_a_recorded_result_is_not_run_again_by_itself(site: Site, crash: str) -> None:
    waiting = await asked(site)
    request = await asked(site)
    with crash_at(crash):
        await site.migrate(request)
    before = ran(site)
    for again in (request, request):
        reply = await site.migrate(again)
        assert (reply.failed, reply.infrastructure) == ("m/1-a.js", True)
        assert "is not run again by itself" in reply.message
        assert "A deployment that is asked for from now on runs it again." in reply.message
    waiting = await site.ask(waiting.commit_sha, waiting.profile_revision_id or "", at="2020-01-01T00:00:00.000Z")
    assert (await site.migrate(waiting)).infrastructure, "it was asked for before anybody could know"
    assert ran(site) == before
    reply = await site.migrate(await asked(site, {}))
    assert (reply.ran, reply.infrastructure) == (4, False)
    assert ran(site) == [*before, *IN_ORDER]


async def test_a_worker_that_dies_between_two_goes_on_with_the_next(site: Site) -> None:
    request = await asked(site)
    with crash_at("migration.recorded"):
        await site.migrate(request)
    reply = await site.migrate(request)
    assert (reply.ran, reply.skipped, reply.failed) == (3, 1, None)
    assert ran(site) == IN_ORDER


async def test_one_that_takes_too_long_has_failed(site: Site) -> None:
    site.program("migrate", "migration", "time.sleep(600)")
    site.limits = {"migration_timeout_seconds": 1}
    reply = await site.migrate(await asked(site))
    assert reply.failed == "m/1-a.js"
    assert "took longer than 1 s" in reply.message
    assert [row["state"] for row in await recorded(site)] == ["failed"]


async def test_nothing_runs_for_a_deployment_that_lost_the_environment(site: Site) -> None:
    late = await asked(site)
    await asked(site, {})
    with pytest.raises(ApplicationError, match="A later deployment") as refused:
        await site.migrate(late)
    assert refused.value.type == "fenced"
    assert await recorded(site) == []


async def test_a_command_that_the_worker_does_not_know_is_asked_for_only_when_something_is_to_run(site: Site) -> None:
    del site.commands["migrate"]
    request = await asked(site)
    with pytest.raises(ApplicationError, match="knows no migration command 'migrate'"):
        await site.migrate(request)
    assert await recorded(site) == []
    nothing = await site.ask(request.commit_sha, await site.revise(migrations=None))
    assert (await site.migrate(nothing)).ran == 0
    none_there = await site.revise(migrations={**PROFILE["migrations"], "repo_paths": ["nowhere"]})
    assert (await site.migrate(await site.ask(request.commit_sha, none_there))).ran == 0


async def test_what_ran_is_listed_newest_first_and_drift_sees_it_applied(site: Site) -> None:
    request = await asked(site)
    await site.migrate(request)
    await site.switch(request)
    await site.shown(request)
    page = await migrations.page(site.platform, {"_id": "qa"}, 1, 3)
    shown = [migrations.execution_record(row) for row in page.items]
    assert (page.total, [one["name"] for one in shown]) == (4, IN_ORDER[:0:-1])
    assert set(shown[0]) == {
        "id",
        "app_id",
        "environment_id",
        "name",
        "blob_id",
        "command",
        "state",
        "started_at",
        "ended_at",
        "deployment_id",
        "release_id",
        "tag",
        "profile_revision_id",
        "exit_code",
        "message",
        "log",
    }
    assert (await site.observe()).migrations == IN_ORDER

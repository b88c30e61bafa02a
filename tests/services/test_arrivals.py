"""Overrides on their way into the profiles of environments (`spec.md` 6, `durability.md` 3 and 15)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from conman.domain.errors import DomainError, ErrorCode
from conman.domain.profile import Profile
from conman.domain.secrets import mask
from conman.services import arrivals, profile_changes, profiles
from conman.services.clock import new_id, now
from conman.services.secret_rotation import rotate_data_key
from conman.services.secrets import unseal
from conman.store.database import Document
from tests.services.desk import ANN, Desk, text
from tests.support.crashes import crash_at

TOKEN = "a token that travels"


@dataclass
class Road:
    """Releases with the overrides of changesets, and deployments that bring them."""

    desk: Desk
    published: list[str] = field(default_factory=list)

    async def release(self, *given: dict[str, Any], reverts: str | None = None) -> str:
        """A published release of one changeset with these overrides."""
        changeset = await self.desk.changeset()
        kept = (await self.desk.put(changeset, *given))["overrides"] if given else []
        made = new_id()
        self.published.append(made)
        member = {"changeset_id": changeset, "head_sha": "h", "base_sha": "b", "revision_number": 1, "overrides": kept}
        at = f"2026-03-01T09:30:{len(self.published):02d}.000Z"
        owned = {"members": [member], "published_sha": "p", "published_at": at, "reverts_release_id": reverts}
        await self.desk.platform.db["releases"].insert_one({"_id": made, "app_id": self.desk.app["_id"], "owned": owned})
        return made

    async def prepare(self, release: str, deployment: str, at: str) -> str:
        db, profile = self.desk.platform.db, self.desk.profiles["QA"]
        return await arrivals.prepare(db, profile, release_id=release, deployment_id=deployment, by=ANN["_id"], at=at)

    async def receive(self, revision: str, deployment: str, at: str) -> None:
        await arrivals.receive(self.desk.platform.db, revision, deployment_id=deployment, by=ANN["_id"], at=at)

    async def deploy(self, release: str) -> str:
        """The revision with which a deployment went out that has succeeded."""
        deployment, at = new_id(), now()
        revision = await self.prepare(release, deployment, at)
        await self.receive(revision, deployment, at)
        return revision

    async def document(self) -> Document:
        return await profiles.find(self.desk.platform, self.desk.app, self.desk.profiles["QA"])

    async def profile(self) -> Profile:
        return Profile.model_validate((await self.document())["content"])

    async def variables(self) -> dict[str, Any]:
        return {key: value.value for key, value in (await self.profile()).env_vars.items()}

    async def history(self) -> list[tuple[int, str, list[str]]]:
        rows, _ = await profiles.revision_page(self.desk.platform, await self.document(), 1, 100)
        return [(row["revision_number"], row["change"], row["release_ids"]) for row in rows]


@pytest.fixture
def road(desk: Desk) -> Road:
    return Road(desk)


def number(value: int, key: str = "N") -> dict[str, Any]:
    return {"env_vars": {key: {"type": "number", "value": value}}}


async def test_a_release_becomes_a_revision_of_the_profile_when_its_deployment_has_succeeded(road: Road) -> None:
    release = await road.release(
        {"env_vars": {"MODE": text("new")}, "secrets": {"TOKEN": TOKEN}, "base_url": "https://qa.example"}
    )
    before = await road.document()
    revision = await road.prepare(release, "deployment", now())
    assert revision != before["revision_id"]
    assert await road.document() == before
    assert await road.history() == [(1, "created", [])]
    await road.receive(revision, "deployment", now())
    after = await road.document()
    assert (after["revision_id"], after["revision_number"], after["version"]) == (revision, 2, before["version"] + 1)
    assert await road.history() == [(2, "released", [release]), (1, "created", [])]
    profile = await road.profile()
    assert (profile.env_vars["MODE"].value, profile.base_url) == ("new", "https://qa.example")
    values = await unseal(road.desk.platform, after["_id"], profile.secrets)
    assert values == {"PIN": "12345678", "TOKEN": TOKEN}
    *_, event = await road.desk.audit(after["_id"])
    assert (event["action"], event["actor_user_id"]) == ("updated", ANN["_id"])
    assert event["before"]["received_release_ids"] == []
    assert event["after"]["received_release_ids"] == [release]
    assert event["after"]["secrets"] == {"TOKEN": mask(TOKEN)}


async def test_an_environment_that_skipped_releases_loses_nothing(road: Road) -> None:
    first = await road.release({**number(1), "base_url": "https://one.example"})
    await road.release()
    third = await road.release(number(3))
    await road.deploy(third)
    assert (await road.variables())["N"] == 3
    assert (await road.profile()).base_url == "https://one.example"
    assert (await road.history())[0] == (2, "released", [first, third])


async def test_what_has_arrived_does_not_arrive_again(road: Road) -> None:
    first, second = await road.release(number(1)), await road.release(number(2, "M"))
    await road.deploy(first)
    await road.desk.edit("QA", env_vars={"N": {"type": "number", "value": 9}})
    await road.deploy(second)
    assert await road.variables() == {"MODE": "old", "N": 9, "M": 2}
    revision = (await road.document())["revision_id"]
    assert await road.deploy(second) == revision
    assert await road.deploy(first) == revision
    assert [row[1] for row in await road.history()] == ["released", "updated", "released", "created"]


async def test_an_older_release_brings_nothing_of_a_newer_one(road: Road) -> None:
    first, second = await road.release(number(1)), await road.release(number(2))
    await road.deploy(first)
    assert (await road.variables())["N"] == 1
    await road.deploy(second)
    assert (await road.variables())["N"] == 2


async def test_an_undone_release_brings_nothing(road: Road) -> None:
    bad = await road.release(number(1))
    undoing = await road.release(number(0, "M"), reverts=bad)
    await road.deploy(undoing)
    assert await road.variables() == {"MODE": "old"}


async def test_overrides_of_another_profile_do_not_arrive(road: Road) -> None:
    live = {"target_environment_id": road.desk.environments["Live"], "base_url": None}
    release = await road.release(live)
    assert await road.deploy(release) == (await road.document())["revision_id"]
    assert await road.history() == [(1, "created", [])]


async def test_a_deployment_that_failed_has_brought_nothing(road: Road) -> None:
    release = await road.release(number(1))
    failed = await road.prepare(release, "failed", now())
    await road.desk.edit("QA", env_vars={"M": {"type": "number", "value": 1}})
    assert await road.deploy(release) != failed
    assert await road.variables() == {"MODE": "old", "M": 1, "N": 1}
    assert [row[0] for row in await road.history()] == [3, 2, 1]


async def test_what_would_make_no_sound_profile_is_refused_before_the_gate(road: Road) -> None:
    release = await road.release({"secrets": {"TOKEN": TOKEN}})
    await road.desk.edit("QA", env_vars={"TOKEN": text("a variable since")})
    with pytest.raises(DomainError) as refusal:
        await road.prepare(release, "deployment", now())
    assert refusal.value.code is ErrorCode.VALIDATION_ERROR
    said = arrivals.problem_of(refusal.value)
    assert "secrets.TOKEN" in said
    assert said.endswith("Then deploy again.")
    assert TOKEN not in said


async def test_a_rotation_in_between_keeps_nothing_from_arriving(road: Road) -> None:
    release = await road.release({"secrets": {"TOKEN": TOKEN}})
    at = now()
    revision = await road.prepare(release, "deployment", at)
    await rotate_data_key(road.desk.platform, road.desk.call(), road.desk.profiles["QA"])
    await road.receive(revision, "deployment", at)
    profile = await road.profile()
    assert (await unseal(road.desk.platform, road.desk.profiles["QA"], profile.secrets))["TOKEN"] == TOKEN


async def test_two_environments_with_one_profile_bring_it_everything_once(road: Road) -> None:
    first, second = await road.release(number(1)), await road.release(number(2, "M"))
    at = now()
    to_qa = await road.prepare(first, "to qa", at)
    to_uat = await road.prepare(second, "to uat", at)
    await asyncio.gather(road.receive(to_qa, "to qa", at), road.receive(to_uat, "to uat", at))
    assert await road.variables() == {"MODE": "old", "N": 1, "M": 2}
    received = (await road.document())["received_release_ids"]
    assert sorted(received) == sorted([first, second])
    for revision, deployment in ((to_qa, "to qa"), (to_uat, "to uat")):
        before = await road.document()
        await road.receive(revision, deployment, at)
        assert await road.document() == before


async def test_a_revert_of_the_profile_does_not_let_them_arrive_again(road: Road) -> None:
    release, later = await road.release(number(1)), await road.release(number(2, "M"))
    await road.deploy(release)
    desk = road.desk
    await profile_changes.revert(desk.platform, desk.call(), desk.app, desk.profiles["QA"], 1, None)
    await road.deploy(later)
    assert await road.variables() == {"MODE": "old", "M": 2}


@pytest.mark.parametrize(
    ("scope", "overridden", "environments"),
    [
        ("affected", [], ["Live"]),
        ("affected", ["QA"], ["QA", "Live"]),
        ("affected", ["Live"], ["Live"]),
        ("affected", ["nobody's"], ["Live"]),
        ("all", [], ["QA", "Live"]),
    ],
)
async def test_a_releases_suite_runs_for_the_canonical_environment_and_those_that_it_overrides(
    road: Road, scope: str, overridden: list[str], environments: list[str]
) -> None:
    """`spec.md` 9."""
    desk = road.desk
    await desk.platform.db["apps"].update_one(
        {"_id": desk.app["_id"]}, {"$set": {"settings.validation_gates.release.profile_scope": scope}}
    )
    ids = [desk.profiles.get(name, name) for name in overridden]
    found = await arrivals.gate_profiles(desk.platform.db, desk.app["_id"], ids)
    assert [one.environment for one in found] == environments
    assert [one.profile_id for one in found] == [desk.profiles[name] for name in environments]


async def test_a_releases_suite_gets_what_earlier_releases_have_still_to_bring(road: Road) -> None:
    first, _ = await road.release(number(1)), await road.release(number(2, "M"))
    await road.deploy(first)
    qa = road.desk.profiles["QA"]
    found = await arrivals.gate_profiles(road.desk.platform.db, road.desk.app["_id"], [qa])
    (waiting,) = found[0].waiting
    assert (waiting.profile_id, waiting.keys) == (qa, {})
    assert found[0].profile_revision_id == (await road.document())["revision_id"]
    assert found[1].waiting == []


@pytest.mark.parametrize("point", ["arrival.kept", "deliver.audited", "deliver.put"])
async def test_whoever_dies_on_the_way_the_repeat_brings_it_once(road: Road, point: str) -> None:
    release = await road.release({**number(1), "secrets": {"TOKEN": TOKEN}})
    deployment, at = new_id(), now()
    with crash_at(point):
        await road.receive(await road.prepare(release, deployment, at), deployment, at)
    for _ in range(2):
        await road.receive(await road.prepare(release, deployment, at), deployment, at)
    assert await road.variables() == {"MODE": "old", "N": 1}
    assert [row[:2] for row in await road.history()] == [(2, "released"), (1, "created")]
    events = [event["action"] for event in await road.desk.audit(road.desk.profiles["QA"])]
    assert events == ["created", "updated"]

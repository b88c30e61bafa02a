"""Runtime profiles under races, repeats and crashes, over real stores (`spec.md` 6, `durability.md` 3 and 15)."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from conman import faults
from conman.activities.store import StoreActivities
from conman.config import Settings
from conman.domain.app import AppSettings
from conman.domain.decision import Actor
from conman.domain.environment import EnvironmentDefinition
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.messages import StartDeployment
from conman.domain.profile_edit import NewProfile, ProfileEdit
from conman.git.adapter import GitAdapter
from conman.services import profile_changes, profiles
from conman.services.call import Call
from conman.services.clock import new_id, now
from conman.services.platform import Platform
from conman.services.secrets import reveal, unseal
from conman.services.vault import Vault
from conman.settings.vault import generate_keyring
from conman.store import locks
from conman.store.database import Document, connect, ensure_indexes
from conman.store.outgoing import sweep
from tests.support.crashes import crash_at
from tests.support.notice_board import NoticeBoard

EVE: Document = {"_id": new_id(), "name": "Eve", "email": "eve@example.com"}
MANY = 8


@dataclass
class Team:
    """An app with one profile, and environments when a test asks for them."""

    uri: str
    platform: Platform
    app: Document
    profile: Document = field(default_factory=dict)

    def call(self, key: str | None = None) -> Call:
        command = uuid.uuid5(uuid.NAMESPACE_URL, key).hex if key is not None else new_id()
        at = "2026-01-31T09:30:00.000Z" if key is not None else now()
        return Call(command_id=command, at=at, actor=Actor(user_id=EVE["_id"]), user=EVE, keyed=key is not None)

    async def edit(self, version: int | None = None, *, call: Call | None = None, **fields: Any) -> Document:
        version = version if version is not None else (await self.now())["version"]
        change = ProfileEdit.model_validate(fields)
        return await profile_changes.edit(self.platform, call or self.call(), self.app, self.profile["_id"], change, version)

    async def revert(self, number: int, version: int | None = None, *, call: Call | None = None) -> Document:
        return await profile_changes.revert(self.platform, call or self.call(), self.app, self.profile["_id"], number, version)

    async def now(self) -> Document:
        return await profiles.find(self.platform, self.app, self.profile["_id"])

    async def environment(self, *, deployed: bool = False) -> str:
        """An environment that the profile is linked to."""
        made = new_id()
        owned = {"fence": 0, "version": 0, "commands": [], **({"current_deployment_id": new_id()} if deployed else {})}
        listed = EnvironmentDefinition(id=made, name=f"env {made[-4:]}", runtime_profile_id=self.profile["_id"]).document()
        document: Document = {"_id": made, "app_id": self.app["_id"], "archived": False, "owned": owned}
        await self.platform.db["environments"].insert_one({**document, "runtime_profile_id": self.profile["_id"]})
        change = {"environments": listed, "environment_ids": made}
        await self.platform.db["apps"].update_one({"_id": self.app["_id"]}, {"$push": change})
        return made

    async def deployment(self, environment: str) -> StartDeployment:
        """A deployment that holds the environment's lock and has not begun to run."""
        deployment = new_id()
        owned = {"state": "pending", "environment_id": environment}
        await self.platform.db["deployments"].insert_one({"_id": deployment, "app_id": self.app["_id"], "owned": owned})
        await locks.take(self.platform.db, self.app["_id"], {environment: deployment}, now())
        return StartDeployment(app_id=self.app["_id"], environment_id=environment, deployment_id=deployment)

    async def begin(self, start: StartDeployment) -> None:
        """What the workflow does when the deployment's gate starts."""
        assert await StoreActivities(self.platform.db).lock_running(start)

    async def begin_elsewhere(self, start: StartDeployment) -> None:
        """As `begin`, in another event loop."""
        client = connect(self.uri)
        try:
            platform = replace(self.platform, db=client[self.platform.db.name])
            await replace(self, platform=platform).begin(start)
        finally:
            await client.close()

    async def history(self) -> list[tuple[int, str]]:
        """Number and name of all revisions that are shown, newest first; the numbers have no gap."""
        rows, page = await profiles.revision_page(self.platform, await self.now(), 1, 100)
        assert page.total == len(rows)
        assert [row["revision_number"] for row in rows] == list(range(len(rows), 0, -1))
        return [(row["revision_number"], row["name"]) for row in rows]

    async def audit(self) -> list[str]:
        await sweep(self.platform.db)
        query = {"entity_id": self.profile["_id"]}
        return [row["action"] async for row in self.platform.db["audit"].find(query).sort("_id", 1)]

    async def secrets(self) -> dict[str, str]:
        content = profiles.Profile.model_validate((await self.now())["content"])
        return await unseal(self.platform, self.profile["_id"], content.secrets)


@pytest.fixture
async def team(mongo_uri: str, tmp_path: Path) -> AsyncIterator[Team]:
    client, name = connect(mongo_uri), f"test_{uuid.uuid4().hex[:12]}"
    platform = Platform(
        settings=Settings(data=tmp_path),
        db=client[name],
        git=cast("GitAdapter", None),
        commands=NoticeBoard().commands,
        keyring=Vault.of(generate_keyring()),
    )
    await ensure_indexes(platform.db)
    app: Document = {"_id": new_id(), "name": "shop", "repo_path": "shop.git", "environments": [], "environment_ids": []}
    app["settings"] = AppSettings().model_dump(mode="json")
    await platform.db["apps"].insert_one(app)
    made = Team(mongo_uri, platform, app)
    new = NewProfile.model_validate({"name": "one", "secrets": {"TOKEN": "first token"}})
    made.profile = await profile_changes.create(platform, made.call(), app, new)
    yield made
    await client.drop_database(name)
    await client.close()


def code(outcome: object) -> ErrorCode | None:
    """The code of a refusal, None for a success."""
    if isinstance(outcome, BaseException):
        assert isinstance(outcome, DomainError), outcome
        return outcome.code
    return None


# -- Races


async def test_of_many_edits_of_one_version_one_wins_and_the_others_are_stale(team: Team) -> None:
    version = team.profile["version"]
    tries = [team.edit(version, name=f"try {number}", secrets={"NEW": f"value {number}"}) for number in range(MANY)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(str(code(outcome)) for outcome in outcomes) == ["None"] + ["stale_write"] * (MANY - 1)
    (winner,) = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert await team.history() == [(2, winner["content"]["name"]), (1, "one")]
    assert (await team.secrets())["NEW"] == winner["content"]["name"].replace("try", "value")
    assert await team.audit() == ["created", "updated"]


async def test_reverts_without_a_version_all_happen_one_after_another(team: Team) -> None:
    await team.edit(name="two")
    outcomes = await asyncio.gather(*(team.revert(number) for number in (1, 2, 1, 2)))
    assert sorted(outcome["revision_number"] for outcome in outcomes) == [3, 4, 5, 6]
    assert {(outcome["revision_number"], outcome["content"]["name"]) for outcome in outcomes} < set(await team.history())
    assert await team.audit() == ["created", "updated"] + ["reverted"] * 4


async def test_a_deletion_and_an_edit_of_one_version_never_both_happen(team: Team) -> None:
    for _ in range(MANY):
        profile = await profile_changes.create(team.platform, team.call(), team.app, NewProfile(name="short-lived"))
        one = Team(team.uri, team.platform, team.app, profile)
        outcomes = await asyncio.gather(
            one.edit(1, name="edited"),
            profile_changes.delete(team.platform, team.call(), team.app, profile["_id"], 1),
            return_exceptions=True,
        )
        codes = [code(outcome) for outcome in outcomes]
        assert codes in ([None, ErrorCode.STALE_WRITE], [ErrorCode.NOT_FOUND, None], [ErrorCode.STALE_WRITE, None])


# -- Repeats


async def test_repeats_with_one_key_make_one_revision_and_get_one_answer(team: Team) -> None:
    call = team.call("edit")
    tries = [team.edit(1, call=call, name="two", secrets={"TOKEN": "second token"}) for _ in range(MANY)]
    answers = await asyncio.gather(*tries)
    await team.edit(name="three")
    answers.append(await team.edit(1, call=call, name="two", secrets={"TOKEN": "second token"}))
    told = {(row["version"], row["revision_number"], row["content"]["name"], row["updated_at"]) for row in answers}
    assert told == {(2, 2, "two", call.at)}
    assert await team.history() == [(3, "three"), (2, "two"), (1, "one")]
    assert await team.audit() == ["updated", "created", "updated"]  # the key's first use is of another day


async def test_a_repeated_creation_gives_the_profile_as_it_was_made(team: Team) -> None:
    call, new = team.call("create"), NewProfile(name="made once")
    made = await profile_changes.create(team.platform, call, team.app, new)
    await Team(team.uri, team.platform, team.app, made).edit(name="renamed")
    again = await profile_changes.create(team.platform, call, team.app, new)
    assert (again["_id"], again["content"], again["version"], again["revision_number"]) == (made["_id"], made["content"], 1, 1)


async def test_a_repeat_of_what_changed_nothing_is_answered_alike_after_later_changes(team: Team) -> None:
    call = team.call("same name")
    await team.platform.db["idempotency"].insert_one({"_id": call.remembered_as})
    first = await team.edit(1, call=call, name="one")
    await team.edit(name="two")
    again = await team.edit(1, call=call, name="one")
    assert [(row["version"], row["revision_number"], row["content"]["name"]) for row in (first, again)] == [(1, 1, "one")] * 2


async def test_a_repeated_deletion_is_done_already(team: Team) -> None:
    call = team.call("delete")
    for _ in range(2):
        await profile_changes.delete(team.platform, call, team.app, team.profile["_id"], 1)
    assert sorted(await team.audit()) == ["created", "deleted"]
    with pytest.raises(DomainError, match="No such"):
        await team.now()


async def test_setting_a_secret_to_its_present_value_is_no_change(team: Team) -> None:
    found = await team.edit(secrets={"TOKEN": "first token"}, env_vars={"NOBODY": None})
    assert (found["version"], found["revision_number"]) == (1, 1)
    assert await team.audit() == ["created"]


# -- Crashes


@pytest.mark.parametrize("point", ["secrets.sealed", "profile.kept", "deliver.audited", "deliver.put"])
async def test_a_crash_leaves_no_gap_and_a_repeat_finishes(team: Team, point: str) -> None:
    call = team.call("edit")
    fields: dict[str, Any] = {"name": "two", "secrets": {"TOKEN": "second token"}}
    with crash_at(point):
        await team.edit(1, call=call, **fields)
    done = [(2, "two"), (1, "one")] if point.startswith("deliver") else [(1, "one")]
    assert await team.history() == done
    assert await team.secrets() == {"TOKEN": "second token" if len(done) == 2 else "first token"}
    found = await team.edit(1, call=call, **fields)
    assert (found["revision_number"], found["content"]["name"]) == (2, "two")
    assert await team.history() == [(2, "two"), (1, "one")]
    assert await team.secrets() == {"TOKEN": "second token"}
    assert sorted(await team.audit()) == ["created", "updated"]


async def test_what_a_crash_left_beside_is_in_no_history_when_somebody_else_writes_next(team: Team) -> None:
    with crash_at("profile.kept"):
        await team.edit(1, name="lost")
    await team.edit(1, name="two")
    with crash_at("profile.kept"):
        await team.edit(2, name="lost too")
    await team.revert(1)
    assert await team.history() == [(3, "one"), (2, "two"), (1, "one")]
    assert await team.platform.db["profile_revisions"].count_documents({"profile_id": team.profile["_id"]}) == 5
    chosen = await profiles.choose(team.platform, team.app, await team.now(), "2", "from")
    assert chosen.profile.name == "two"


# -- Secrets


async def test_a_revert_brings_back_the_old_values_of_secrets(team: Team) -> None:
    await team.edit(secrets={"TOKEN": "second token", "OTHER": "another value"})
    await team.revert(1)
    assert await team.secrets() == {"TOKEN": "first token"}


async def test_secrets_of_two_profiles_with_equal_values_do_not_differ(team: Team) -> None:
    new = NewProfile.model_validate({"name": "one", "secrets": {"TOKEN": "first token", "PIN": "1"}})
    other = await profile_changes.create(team.platform, team.call(), team.app, new)
    one, two = [await profiles.choose(team.platform, team.app, team.profile, one, "to") for one in (None, other["_id"])]
    assert (await profiles.difference(team.platform, one, two))["changes"] == [
        {"field": "secrets", "key": "PIN", "change": "added", "before": None, "after": "****"}
    ]


async def test_a_secret_that_can_not_be_decrypted_any_more_differs_from_all_and_can_be_set_anew(team: Team) -> None:
    await team.edit(secrets={"TOKEN": "second token"})
    await team.platform.db["secret_values"].delete_many({"profile_id": team.profile["_id"]})
    one, two = [await profiles.choose(team.platform, team.app, await team.now(), text, "to") for text in ("1", "2")]
    found = await profiles.difference(team.platform, one, two)
    assert [(row["key"], row["change"]) for row in found["changes"]] == [("TOKEN", "changed")]
    await team.edit(secrets={"TOKEN": "second token"})
    assert await team.secrets() == {"TOKEN": "second token"}


async def test_no_plaintext_is_anywhere_in_the_database(team: Team) -> None:
    """`spec.md` 6."""
    await team.edit(secrets={"TOKEN": "second token", "OTHER": "another value"})
    await team.revert(1)
    assert await reveal(team.platform, team.call(), await team.now(), "TOKEN") == "first token"
    assert await team.audit() == ["created", "updated", "reverted", "secret_revealed"]
    db = team.platform.db
    kept = [str(await db[name].find().to_list()) for name in await db.list_collection_names()]
    assert not [text for text in kept if any(plain in text for plain in ("first token", "second token", "another value"))]


# -- Environments


async def test_a_change_of_what_was_deployed_is_an_emergency_edit_recorded_for_each_environment(team: Team) -> None:
    """`spec.md` 6; deployments there are blocked by it later (`spec.md` 12)."""
    fresh = await team.environment()
    await team.edit(name="two")
    assert "emergency" not in await team.now()
    deployed = [await team.environment(deployed=True) for _ in range(2)]
    await team.edit(name="three")
    assert (await team.now())["emergency"] == dict.fromkeys(deployed, 3)
    await team.revert(1)
    assert (await team.now())["emergency"] == dict.fromkeys(deployed, 4)
    assert await team.audit() == ["created", "updated", "emergency_edited", "reverted", "emergency_edited"]
    query = {"entity_id": team.profile["_id"], "action": "emergency_edited"}
    told = await team.platform.db["audit"].find(query).sort("_id", 1).to_list()
    assert [(row["before"]["name"], row["after"]["name"]) for row in told] == [("two", "three"), ("three", "one")]
    assert {environment for row in told for environment in row["after"]["environment_ids"]} == set(deployed)
    assert fresh not in str(told)


async def test_a_change_is_refused_while_a_deployment_with_the_profile_runs(team: Team) -> None:
    """`spec.md` 6."""
    start = await team.deployment(await team.environment())
    await team.edit(name="two")  # it has not begun to run
    await team.begin(start)
    for change in (team.edit(name="three"), team.revert(1)):
        with pytest.raises(DomainError) as told:
            await change
        assert (told.value.code, told.value.details) == (ErrorCode.ENVIRONMENT_LOCKED, {"deployment_id": start.deployment_id})
    assert await team.history() == [(2, "two"), (1, "one")]
    await team.platform.db["deployments"].update_one({"_id": start.deployment_id}, {"$set": {"owned.state": "succeeded"}})
    await team.edit(name="three")  # the lock of what has ended counts as free


async def test_a_deployment_that_begins_between_the_look_at_the_locks_and_the_write_stops_a_change(team: Team) -> None:
    start = await team.deployment(await team.environment())

    def begin(_: str) -> None:
        """In another event loop, as another process would, while this one stands still."""
        thread = threading.Thread(target=lambda: asyncio.run(team.begin_elsewhere(start)))
        thread.start()
        thread.join()

    faults.arm({"profile.kept": 1}, begin)
    try:
        with pytest.raises(DomainError) as told:
            await team.edit(name="two")
    finally:
        faults.arm({})
    assert told.value.code is ErrorCode.ENVIRONMENT_LOCKED
    assert await team.history() == [(1, "one")]


async def test_a_linked_profile_stays_one_for_persistent_environments(team: Team) -> None:
    await team.edit(kind="temp_workspace")
    await team.edit(kind="persistent_env")
    environment = await team.environment()
    with pytest.raises(DomainError) as told:
        await team.edit(kind="temp_changeset")
    assert (told.value.code, told.value.details) == (ErrorCode.CONFLICT, {"environment_ids": [environment]})
    with pytest.raises(DomainError):
        await team.revert(2)


# -- What stands against a deletion


async def test_a_profile_that_something_builds_on_is_not_deleted(team: Team) -> None:
    """`api.md` 3: 409 while linked."""

    async def refused(profile_id: str) -> dict[str, Any]:
        with pytest.raises(DomainError) as told:
            await profile_changes.delete(team.platform, team.call(), team.app, profile_id, None)
        assert told.value.code is ErrorCode.CONFLICT
        return told.value.details

    environment = await team.environment()
    profile_id = team.profile["_id"]
    assert await refused(profile_id) == {"environment_ids": [environment]}
    unlisted = {"environments": [], "environment_ids": []}
    await team.platform.db["apps"].update_one({"_id": team.app["_id"]}, {"$set": unlisted})
    default = {"settings.default_base_profile_id": profile_id}
    await team.platform.db["apps"].update_one({"_id": team.app["_id"]}, {"$set": default})
    assert await refused(profile_id) == {"setting": "default_base_profile_id"}
    await team.platform.db["apps"].update_one({"_id": team.app["_id"]}, {"$set": dict.fromkeys(default)})
    database = {
        "engine": "mongodb",
        "connection_ref": "DB",
        "provisioning_mode": "clone_from_base",
        "base_profile_id": profile_id,
    }
    new = NewProfile.model_validate({"name": "builds on it", "secrets": {"DB": "mongodb://db"}, "database": database})
    other = await profile_changes.create(team.platform, team.call(), team.app, new)
    assert await refused(profile_id) == {"profile_ids": [other["_id"]]}
    await profile_changes.delete(team.platform, team.call(), team.app, other["_id"], None)
    await profile_changes.delete(team.platform, team.call(), team.app, profile_id, None)
    assert (await profiles.page(team.platform, team.app, 1, 20)).total == 0


async def test_a_base_profile_is_another_one_of_this_app_that_is_there(team: Team) -> None:
    elsewhere: Document = {"_id": new_id(), "settings": AppSettings().model_dump(mode="json")}
    theirs = await profile_changes.create(team.platform, team.call(), elsewhere, NewProfile(name="theirs"))
    gone = await profile_changes.create(team.platform, team.call(), team.app, NewProfile(name="gone"))
    await profile_changes.delete(team.platform, team.call(), team.app, gone["_id"], None)
    for base in (new_id(), theirs["_id"], gone["_id"], team.profile["_id"]):
        database = {"engine": "mongodb", "connection_ref": "TOKEN", "provisioning_mode": "existing", "base_profile_id": base}
        with pytest.raises(DomainError, match="base_profile_id") as told:
            await team.edit(database=database)
        assert told.value.code is ErrorCode.VALIDATION_ERROR
    assert await team.history() == [(1, "one")]


# -- Who is told


async def test_each_change_is_told_once_and_its_mails_are_started_at_once(team: Team) -> None:
    """`spec.md` 14; a repeat of the same request tells nobody anew, and what changes nothing tells nobody."""
    await team.environment(deployed=True)
    for _ in range(2):
        await team.edit(version=1, call=team.call("the same"), secrets={"TOKEN": "a second token"})
    await team.edit(secrets={"TOKEN": "a second token"})
    rows = await team.platform.db["notifications"].find({}).to_list()
    assert [row["_id"] for row in rows] == cast("NoticeBoard", team.platform.commands).started
    (notice,) = (row["notice"] for row in rows)
    assert (notice["kind"], notice["entity_id"], notice["actor_user_id"]) == (
        "runtime_profile_changed",
        team.profile["_id"],
        EVE["_id"],
    )
    assert (notice["data"]["fields"], len(notice["data"]["environments"])) == (["secrets.TOKEN"], 1)
    assert "token" not in str(notice["data"])

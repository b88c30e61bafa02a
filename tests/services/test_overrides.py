"""Overrides of a changeset over real stores: what is kept, races, repeats and crashes (`spec.md` 6, `durability.md` 3)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from conman.domain.errors import DomainError, ErrorCode
from conman.domain.override_collisions import colliding_keys
from conman.domain.overrides import frozen_of
from conman.domain.secrets import mask
from conman.services import overrides
from conman.services.master_rotation import rotate_master
from conman.services.override_contents import shown_overrides
from conman.services.secret_rotation import rotate_data_key
from conman.services.vault import Vault
from conman.settings.vault import generate_keyring
from tests.services.desk import Desk, text
from tests.support.crashes import crash_at

TOKEN = "a token that nobody may read"
MANY = 8


async def refusal(work: Any, code: ErrorCode) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await work
    assert caught.value.code is code
    return caught.value


# -- What is kept


async def test_overrides_are_kept_by_reference_and_told_masked(desk: Desk) -> None:
    changeset = await desk.changeset()
    given = {"env_vars": {"MODE": text("new"), "OLD": None}, "secrets": {"TOKEN": TOKEN}, "base_url": "https://qa.example.com"}
    after = await desk.put(changeset, given)
    assert after["version"] == 2
    (frozen,) = await desk.frozen(changeset)
    assert (frozen.profile_id, frozen.target) == (desk.profiles["QA"], {"target_environment_id": desk.environments["QA"]})
    assert sorted(frozen.keys) == ["base_url", "env_vars.MODE", "env_vars.OLD", "secrets.TOKEN"]
    (shown,) = await shown_overrides(desk.platform.db, after["overrides"])
    assert shown == [{**given, "target_environment_id": desk.environments["QA"], "secrets": {"TOKEN": mask(TOKEN)}}]
    (event,) = await desk.audit(changeset)
    assert (event["action"], event["before"], event["after"]) == ("overrides_updated", {"overrides": []}, {"overrides": shown})
    assert await desk.value(changeset, "TOKEN") == TOKEN
    for collection in await desk.platform.db.list_collection_names():
        assert TOKEN not in json.dumps(await desk.platform.db[collection].find().to_list(), default=str), collection


async def test_the_effective_variables_say_what_comes_from_the_override(desk: Desk) -> None:
    changeset = await desk.changeset()
    after = await desk.put(changeset, {"env_vars": {"MODE": text("new")}, "secrets": {"TOKEN": TOKEN}})
    (effective,) = (await overrides.shown(desk.platform, desk.app, after))["effective"]
    assert effective["profile_id"] == desk.profiles["QA"]
    assert [(one["key"], one["source"], one["value"]) for one in effective["variables"]] == [
        ("MODE", "override", "new"),
        ("PIN", "profile", mask("12345678")),
        ("TOKEN", "override", mask(TOKEN)),
    ]


async def test_the_same_overrides_again_change_nothing_and_keep_their_secrets(desk: Desk) -> None:
    changeset = await desk.changeset()
    given = {"env_vars": {"MODE": text("new")}, "secrets": {"TOKEN": TOKEN, "PIN": "a new pin"}}
    first = await desk.put(changeset, given)
    again = await desk.put(changeset, given)
    assert (again["version"], again["overrides"]) == (first["version"], first["overrides"])
    assert len(await desk.audit(changeset)) == 1
    other = await desk.put(changeset, {**given, "secrets": {"TOKEN": TOKEN, "PIN": "another pin"}})
    assert other["overrides"] != first["overrides"]
    assert frozen_of(other["overrides"])[0].keys["secrets.TOKEN"] == frozen_of(first["overrides"])[0].keys["secrets.TOKEN"]
    assert await desk.value(changeset, "PIN") == "another pin"


async def test_equal_secrets_of_two_changesets_are_told_by_their_digests_also_after_rotations(desk: Desk) -> None:
    one, other, third = [await desk.changeset() for _ in range(3)]
    await desk.put(one, {"secrets": {"TOKEN": TOKEN}})
    await rotate_data_key(desk.platform, desk.call(), desk.profiles["QA"])
    fresh = generate_keyring()
    desk.platform.keyring = Vault.of(f"{fresh},{desk.keyring}")
    await rotate_master(desk.platform, desk.call(), lambda _done, _total: None)
    desk.platform.keyring = Vault.of(fresh)
    await desk.put(other, {"secrets": {"TOKEN": TOKEN}})
    await desk.put(third, {"secrets": {"TOKEN": TOKEN + "!"}})
    frozen = [await desk.frozen(changeset) for changeset in (one, other, third)]
    assert colliding_keys(frozen[0], frozen[1]) == []
    assert colliding_keys(frozen[0], frozen[2]) == [(desk.profiles["QA"], "secrets.TOKEN")]
    assert await desk.value(one, "TOKEN") == TOKEN


async def test_a_digest_says_nothing_of_its_key_or_profile(desk: Desk) -> None:
    """The same value is another digest under another name, and for another profile: only its own key tells it."""
    changeset = await desk.changeset()
    live = {"target_environment_id": None, "target_profile_id": desk.profiles["Live"], "secrets": {"ONE": TOKEN}}
    await desk.put(changeset, {"secrets": {"ONE": TOKEN, "TWO": TOKEN}}, live)
    found = [digest for frozen in await desk.frozen(changeset) for digest in frozen.keys.values()]
    assert len(set(found)) == 3


# -- What is refused


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"target_environment_id": "nowhere", "base_url": None}, "overrides.0.target_environment_id"),
        ({"target_environment_id": None, "target_profile_id": "nobody's", "base_url": None}, "overrides.0.target_profile_id"),
        ({"secrets": {"PIN": mask("12345678")}}, "overrides.0.secrets.PIN"),
        ({"secrets": {"MODE": "now a secret"}}, "overrides.0.secrets.MODE"),
        (
            {"database": {"engine": "mongodb", "connection_ref": "URI", "provisioning_mode": "existing"}},
            "overrides.0.database.connection_ref",
        ),
        ({"migrations": {"repo_paths": ["m"], "command_ref": "nobody's"}}, "overrides.0.migrations.command_ref"),
    ],
    ids=["environment", "profile", "mask", "variable and secret", "connection_ref", "command_ref"],
)
async def test_what_would_make_no_sound_profile_is_refused_with_its_field(desk: Desk, given: dict[str, Any], field: str) -> None:
    changeset = await desk.changeset()
    error = await refusal(desk.put(changeset, given), ErrorCode.VALIDATION_ERROR)
    assert [one["field"] for one in error.details] == [field]
    assert await desk.frozen(changeset) == []


async def test_the_mask_of_the_overrides_own_secret_is_refused_too(desk: Desk) -> None:
    changeset = await desk.changeset()
    await desk.put(changeset, {"secrets": {"TOKEN": TOKEN}})
    error = await refusal(desk.put(changeset, {"secrets": {"TOKEN": mask(TOKEN)}}), ErrorCode.VALIDATION_ERROR)
    assert error.details[0]["field"] == "overrides.0.secrets.TOKEN"


async def test_two_overrides_of_one_profile_are_refused_however_they_name_it(desk: Desk) -> None:
    changeset = await desk.changeset()
    by_profile = {"target_environment_id": None, "target_profile_id": desk.profiles["QA"], "base_url": None}
    error = await refusal(desk.put(changeset, {"env_vars": {"A": None}}, by_profile), ErrorCode.VALIDATION_ERROR)
    assert error.details == [{"field": "overrides.1", "message": "is for the same profile as overrides.0: put both into one"}]


async def test_a_variable_becomes_a_secret_in_one_override(desk: Desk) -> None:
    changeset = await desk.changeset()
    await desk.put(changeset, {"env_vars": {"MODE": None}, "secrets": {"MODE": "now a secret"}})
    assert await desk.value(changeset, "MODE") == "now a secret"


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("draft", None),
        ("changes_requested", None),
        *((state, ErrorCode.INVALID_TRANSITION) for state in ("submitted", "in_review", "approved", "queued", "released")),
    ],
)
async def test_overrides_are_edited_in_draft_and_changes_requested(desk: Desk, state: str, code: ErrorCode | None) -> None:
    changeset = await desk.changeset(state)
    if code is None:
        await desk.put(changeset, {"base_url": None})
    else:
        error = await refusal(desk.put(changeset, {"base_url": None}), code)
        assert error.details == {"from": state, "to": "draft"}
    assert len(await desk.frozen(changeset)) == (1 if code is None else 0)


async def test_a_body_is_judged_before_the_version_and_the_version_before_the_state(desk: Desk) -> None:
    changeset = await desk.changeset("approved")
    wrong = {"target_environment_id": "nowhere", "base_url": None}
    await refusal(desk.put(changeset, wrong, version=9), ErrorCode.VALIDATION_ERROR)
    await refusal(desk.put(changeset, {"base_url": None}, version=9), ErrorCode.STALE_WRITE)
    await refusal(desk.put(changeset, {"base_url": None}, version=1), ErrorCode.INVALID_TRANSITION)


# -- Freezing


async def test_a_target_that_has_another_profile_now_must_be_set_again(desk: Desk) -> None:
    changeset = await desk.changeset()
    await desk.put(changeset, {"base_url": None})
    document = await desk.read(changeset)
    assert await overrides.to_freeze(desk.platform, desk.app, document) == document["overrides"]
    environments = [{**one, "runtime_profile_id": desk.profiles["Live"]} for one in desk.app["environments"]]
    await desk.platform.db["apps"].update_one({"_id": desk.app["_id"]}, {"$set": {"environments": environments}})
    error = await refusal(overrides.to_freeze(desk.platform, desk.app, document), ErrorCode.CONFLICT)
    assert "has another profile now" in error.message


async def test_a_target_that_is_gone_must_be_set_again(desk: Desk) -> None:
    changeset = await desk.changeset()
    await desk.put(changeset, {"target_environment_id": None, "target_profile_id": desk.profiles["QA"], "base_url": None})
    await desk.platform.db["profiles"].update_one({"_id": desk.profiles["QA"]}, {"$set": {"deleted": True}})
    error = await refusal(overrides.to_freeze(desk.platform, desk.app, await desk.read(changeset)), ErrorCode.CONFLICT)
    assert "is gone" in error.message


@pytest.mark.parametrize(
    ("environment", "policy", "strict"),
    [
        ("Live", "stricter_two_approvals", True),
        ("Live", "same_as_changeset", False),
        ("QA", "stricter_two_approvals", False),
    ],
)
async def test_only_the_canonical_environments_profile_is_stricter(
    desk: Desk, environment: str, policy: str, strict: bool
) -> None:
    changeset = await desk.changeset()
    after = await desk.put(changeset, {"target_environment_id": desk.environments[environment], "base_url": None})
    desk.app["settings"]["runtime_profile_approval_policy"] = policy
    assert overrides.overrides_canonical(desk.app, overrides.overrides_in_force(after)) is strict
    assert not overrides.overrides_canonical(desk.app, [])


# -- Races, repeats and crashes


async def test_of_many_writers_of_one_version_one_wins_and_the_others_are_stale(desk: Desk) -> None:
    changeset = await desk.changeset()
    puts = [desk.put(changeset, {"env_vars": {"N": text(str(number))}}, version=1) for number in range(MANY)]
    outcomes = await asyncio.gather(*puts, return_exceptions=True)
    codes = [outcome.code for outcome in outcomes if isinstance(outcome, DomainError)]
    assert codes == [ErrorCode.STALE_WRITE] * (MANY - 1)
    assert len(await desk.audit(changeset)) == 1


async def test_writers_that_name_no_version_all_count_and_the_audit_has_each_step(desk: Desk) -> None:
    changeset = await desk.changeset()
    await asyncio.gather(*(desk.put(changeset, {"env_vars": {"N": text(str(number))}}) for number in range(MANY)))
    events = await desk.audit(changeset)
    steps = {json.dumps(event["before"]["overrides"]): json.dumps(event["after"]["overrides"]) for event in events}
    (present,) = await shown_overrides(desk.platform.db, (await desk.read(changeset))["overrides"])
    at, seen = "[]", 0
    while at in steps:
        at, seen = steps.pop(at), seen + 1
    assert (at, seen) == (json.dumps(present), MANY)
    assert (await desk.read(changeset))["version"] == 1 + MANY


async def test_a_repeat_has_one_effect_and_the_first_answer(desk: Desk) -> None:
    changeset = await desk.changeset()
    given = {"secrets": {"TOKEN": TOKEN}, "env_vars": {"A": text("a")}}
    call = await desk.keyed("put once")
    answers = await asyncio.gather(*(desk.put(changeset, given, call=call) for _ in range(MANY)))
    await desk.put(changeset, {"base_url": None})
    answers.append(await desk.put(changeset, given, call=call))
    assert len({json.dumps([one["overrides"], one["version"]]) for one in answers}) == 1
    assert len(await desk.audit(changeset)) == 2
    assert [list(one.keys) for one in await desk.frozen(changeset)] == [["base_url"]]


async def test_a_repeat_of_what_changed_nothing_changes_nothing_later(desk: Desk) -> None:
    changeset = await desk.changeset()
    await desk.put(changeset, {"base_url": None})
    call = await desk.keyed("put in vain")
    first = await desk.put(changeset, {"base_url": None}, call=call)
    await desk.put(changeset, {"env_vars": {"A": None}})
    again = await desk.put(changeset, {"base_url": None}, call=call)
    assert (again["overrides"], again["version"]) == (first["overrides"], first["version"])
    assert [list(one.keys) for one in await desk.frozen(changeset)] == [["env_vars.A"]]


@pytest.mark.parametrize("point", ["secrets.sealed", "overrides.kept", "deliver.audited"])
async def test_a_writer_that_dies_leaves_all_or_nothing_and_its_repeat_finishes(desk: Desk, point: str) -> None:
    changeset = await desk.changeset()
    given = {"secrets": {"TOKEN": TOKEN}, "base_url": "https://qa.example.com"}
    call = await desk.keyed("put and die")
    with crash_at(point):
        await desk.put(changeset, given, call=call)
    assert len(await desk.frozen(changeset)) == (1 if point == "deliver.audited" else 0)
    await desk.put(changeset, given, call=call)
    assert await desk.value(changeset, "TOKEN") == TOKEN
    assert [event["action"] for event in await desk.audit(changeset)] == ["overrides_updated"]
    assert (await desk.read(changeset))["version"] == 2

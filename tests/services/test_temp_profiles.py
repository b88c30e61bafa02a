"""The derived profile of a temp env: what it is made of, and where each value comes from (`spec.md` 6 and 13)."""

from __future__ import annotations

import pytest
from pydantic import SecretStr
from temporalio.exceptions import ApplicationError

from conman.domain.errors import DomainError, ErrorCode
from conman.domain.profile_edit import NewProfile, ProfileEdit
from conman.domain.temp_env import TempEnvKind, TempEnvState, temp_database
from conman.services import profile_changes, profiles
from conman.services.environments import _known  # pyright: ignore[reportPrivateUsage]
from conman.services.rendering import render
from tests.services.desk import text
from tests.services.people import refused
from tests.services.temp_site import TempSite, site

__all__ = ["site"]


async def test_a_workspace_gets_the_base_profile_with_its_own_url_secrets_and_database(site: TempSite) -> None:
    ref = await site.temp_env()
    made = await site.run("provision_profile", ref)
    profile, base = await site.profile(ref), await site.db["profiles"].find_one({"_id": site.base_id})
    content, temp = profile["content"], await site.temp(ref)
    assert (made.runtime_profile_id, made.ttl_idle_hours, made.grace_hours, made.auto_cleanup) == (profile["_id"], 5, 2, True)
    assert (content["name"], content["kind"], content["base_url"]) == (temp.label, "temp_workspace", temp.url)
    assert content["env_vars"] == base["content"]["env_vars"]
    assert content["database"]["provisioning_mode"] == "clone_from_base"
    assert content["database"]["base_profile_id"] == site.base_id
    assert await site.secret(profile, "PIN") == "12345678"
    assert temp_database(ref.temp_env_id) in await site.secret(profile, "DB")
    ids = {key: value["value_id"] for key, value in content["secrets"].items()}
    assert not set(ids.values()) & {value["value_id"] for value in base["content"]["secrets"].values()}
    assert len(await site.db["data_keys"].distinct("_id", {"profile_id": {"$in": [profile["_id"], site.base_id]}})) == 2
    assert await site.audit(profile["_id"]) == ["created"]


@pytest.mark.parametrize("crash", ["temp_env.sealed", "temp_env.profiled"])
async def test_a_profile_whose_making_died_is_made_once_from_what_its_base_is_by_then(site: TempSite, crash: str) -> None:
    ref = await site.temp_env()
    await site.died(crash, "provision_profile", ref)
    await site.desk.edit("QA", secrets={"PIN": "87654321"})
    first = await site.run("provision_profile", ref)
    await site.desk.edit("QA", secrets={"PIN": "00000000"})
    assert await site.run("provision_profile", ref) == first
    profile = await site.profile(ref)
    assert await site.secret(profile, "PIN") == "87654321"
    assert profile["content"]["secrets"]["PIN"]["mask"].endswith("4321")
    assert await site.audit(profile["_id"]) == ["created"]


async def test_a_changeset_s_overrides_for_the_base_are_in_it_and_are_shown_as_such(site: TempSite) -> None:
    changeset = await site.desk.changeset()
    live = {"target_environment_id": site.desk.environments["Live"], "env_vars": {"MODE": text("live")}}
    await site.desk.put(changeset, {"env_vars": {"MODE": text("new")}, "secrets": {"TOKEN": "over-ridden"}}, live)
    ref = await site.temp_env(TempEnvKind.CHANGESET, changeset)
    await site.run("provision_profile", ref)
    profile = await site.profile(ref)
    assert profile["content"]["kind"] == "temp_changeset"
    assert await site.secret(profile, "TOKEN") == "over-ridden"
    app = {**site.desk.app, "settings": {**site.desk.app["settings"], "env_defaults": {"ZONE": text("a"), "MODE": text("d")}}}
    shown = profiles.effective_record(app, profile)
    assert {row["key"]: (row["value"], row["source"]) for row in shown["variables"] if not row["secret"]} == {
        "MODE": ("new", "override"),
        "REGION": ("eu", "profile"),
        "ZONE": ("a", "app_default"),
    }
    assert {row["key"]: row["source"] for row in shown["variables"] if row["secret"]} == {
        "DB": "override",
        "PIN": "profile",
        "TOKEN": "override",
    }
    assert shown["base_url"] == {"value": (await site.temp(ref)).url, "source": "override"}
    assert shown["database"]["source"] == "override"


async def test_the_operator_s_server_takes_the_place_of_the_base_s(site: TempSite) -> None:
    ref = await site.temp_env()
    uri = SecretStr("mongodb://cloner:hush@clones.example.com/?tls=true")
    await site.run("provision_profile", ref, temp_database_uri=uri)
    name = temp_database(ref.temp_env_id)
    profile = await site.profile(ref)
    assert await site.secret(profile, "DB") == f"mongodb://cloner:hush@clones.example.com/{name}?tls=true&authSource=admin"
    assert "hush" not in str(profile)


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("mongodb://u:hush@h/x?authMechanism=MONGODB-AWS", "identity of its own"),
        ("not a uri: hush", "no connection string"),
        ("mongodb://u:hush@elsewhere.example.com/x", "CONMAN_TEMP_DATABASE_SERVERS"),
    ],
)
async def test_a_connection_that_can_not_be_cloned_fails_with_what_to_mend_and_without_itself(
    site: TempSite, uri: str, problem: str
) -> None:
    await site.desk.edit("QA", secrets={"DB": uri})
    ref = await site.temp_env()
    with pytest.raises(ApplicationError, match=problem) as told:
        await site.run("provision_profile", ref, temp_database_servers="127.0.0.1:*")
    assert (told.value.type, told.value.non_retryable, told.value.__cause__) == ("runner_error", True, None)
    assert "hush" not in str(told.value)


async def test_the_profile_stays_with_its_temp_env(site: TempSite) -> None:
    ref = await site.temp_env()
    await site.run("provision_profile", ref)
    platform, app, profile = site.desk.platform, site.desk.app, await site.profile(ref)
    assert profile["_id"] not in (await _known(platform, app)).profile_ids, "no environment can be linked to it"
    kind = ProfileEdit.model_validate({"kind": "persistent_env"})
    edit = profile_changes.edit(platform, site.desk.call(), app, profile["_id"], kind, profile["version"])
    assert await refused(edit) is ErrorCode.CONFLICT
    with pytest.raises(DomainError, match="temporary environment") as told:
        await profile_changes.delete(platform, site.desk.call(), app, profile["_id"], None)
    assert told.value.details == {"temp_env_id": ref.temp_env_id}
    await site.becomes(ref, TempEnvState.DELETED)
    await profile_changes.delete(platform, site.desk.call(), app, profile["_id"], None)


async def test_a_deleted_profile_can_still_be_rendered_for_what_ran_with_it(site: TempSite) -> None:
    ref = await site.provisioned()
    profile = await site.profile(ref)
    await site.run("clean_up_temp_env", ref)
    rendered = await render(site.desk.platform, site.desk.app, None, profile["revision_id"])
    assert rendered.variables["REGION"] == "eu"
    assert await site.audit(profile["_id"]) == ["created", "deleted"]


async def test_a_profile_that_another_one_builds_on_outlives_its_temp_env(site: TempSite) -> None:
    ref = await site.provisioned()
    profile = await site.profile(ref)
    database = {"engine": "mongodb", "connection_ref": "DB", "provisioning_mode": "existing", "base_profile_id": profile["_id"]}
    new = NewProfile.model_validate({"name": "on it", "secrets": {"DB": "mongodb://h/x"}, "database": database})
    other = await profile_changes.create(site.desk.platform, site.desk.call(), site.desk.app, new)
    reply = await site.run("clean_up_temp_env", ref)
    assert (reply.database_dropped, reply.branch_deleted, reply.profile_deleted, reply.left) == (True, True, False, [])
    await site.becomes(ref, TempEnvState.DELETED)
    await profile_changes.delete(site.desk.platform, site.desk.call(), site.desk.app, other["_id"], None)
    assert (await site.sweep())["seen"] == 1
    await site.an_hour_later()
    assert (await site.sweep())["removed"] == 1
    assert (await site.profile(ref))["deleted"]

"""Settings, environments and the end of an app, under races, repeats and crashes (`spec.md` 6, `durability.md` 3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from conman.activities.calls import CallActivities
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.messages import QueueCall
from conman.domain.secrets import SecretRef
from conman.domain.times import later
from conman.services import app_settings, archive, environment_records, environments, standstill
from conman.services.call import Call
from conman.services.clock import now
from conman.services.platform import Platform
from conman.services.secrets import unseal
from conman.store import locks, records
from conman.store.database import Document
from conman.store.outgoing import deliver
from tests.services.registry import Registry
from tests.support.conman_stack import wait_for
from tests.support.crashes import crash_at


@pytest.fixture
async def platform(registry: Registry) -> AsyncIterator[Platform]:
    async with registry.process() as made:
        registry.app_id = (await registry.make(made))["_id"]
        yield made


async def upkeep(platform: Platform) -> None:
    """What the schedule does about apps."""
    await standstill.abandon_old(platform.db)
    await environments.settle_all(platform.db)
    await app_settings.tell_queues(platform.db, platform.commands)
    await archive.end_all(platform.db, platform.commands)


async def age(registry: Registry, platform: Platform) -> None:
    """Let what a dead process has begun look as old as it must be for upkeep to undo it."""
    old = later(now(), -standstill.ABANDONED_AFTER * 2)
    await platform.db["apps"].update_one({"_id": registry.app_id, "closing.at": {"$exists": True}}, {"$set": {"closing.at": old}})
    await platform.db["locks"].update_many({"undecided.0": {"$exists": True}}, {"$set": {"undecided.0.at": old}})


async def change(registry: Registry, platform: Platform, call: Call | None = None, **patch: Any) -> Document:
    version = patch.pop("version", None) or (await registry.app(platform))["version"]
    return await app_settings.change(platform, call or registry.call(), registry.app_id, patch, version)


def items(app: Document, *names: str) -> list[dict[str, Any]]:
    """The named environments of the list, the last one canonical."""
    by_name = {environment["name"]: environment["id"] for environment in app["environments"]}
    return [
        {**({"id": by_name[name]} if name in by_name else {}), "name": name, "is_canonical": name == names[-1]} for name in names
    ]


async def relist(registry: Registry, platform: Platform, *names: str, call: Call | None = None, version: int = 0) -> Document:
    app = await registry.app(platform)
    wanted = items(app, *names)
    return await environments.replace(platform, call or registry.call(), registry.app_id, wanted, version or app["version"])


async def shown(platform: Platform, app: Document) -> list[tuple[str, int]]:
    return [(row["name"], row["position"]) for row in await environments.list_environments(platform, app)]


def code_of(outcome: object) -> str:
    return outcome.code.value if isinstance(outcome, DomainError) else "done"


async def take(registry: Registry, platform: Platform, environment_id: str) -> locks.Taken:
    deployment = await registry.deployment(platform, environment_id)
    return await locks.take(platform.db, registry.app_id, {environment_id: deployment}, now())


# -- Settings


async def test_a_change_is_one_write_with_an_event_of_what_changed_and_no_more(registry: Registry, platform: Platform) -> None:
    before = await registry.app(platform)
    after = await change(registry, platform, queue_gate="clean_merge", review_reminder_hours=48, name="shop 2")
    assert (after["settings"]["queue_gate"], after["name"]) == ("clean_merge", "shop 2")
    assert after["version"] == before["version"] + 1
    (event,) = await registry.audit(platform, "settings_updated")
    assert event["before"] == {"queue_gate": "up_to_date", "name": "shop"}
    assert event["after"] == {"queue_gate": "clean_merge", "name": "shop 2"}


async def test_a_change_to_what_is_there_writes_nothing(registry: Registry, platform: Platform) -> None:
    before = await registry.app(platform)
    after = await change(registry, platform, queue_gate="up_to_date", name="shop", integration_branch="main")
    assert after["version"] == before["version"]
    assert await registry.audit(platform, "settings_updated") == []


async def test_of_two_changes_on_one_version_exactly_one_is_taken(registry: Registry, platform: Platform) -> None:
    version = (await registry.app(platform))["version"]

    async def one(hours: int) -> Document:
        return await registry.apart(
            lambda apart: app_settings.change(apart, registry.call(), registry.app_id, {"approval_ttl_hours": hours}, version)
        )

    outcomes = await asyncio.gather(*(one(hours) for hours in (1, 2, 3, 4)), return_exceptions=True)
    assert sorted(code_of(outcome) for outcome in outcomes) == ["done", "stale_write", "stale_write", "stale_write"]
    assert len(await registry.audit(platform, "settings_updated")) == 1


async def test_repeats_of_a_change_have_one_effect_also_at_once_and_after_another_change(
    registry: Registry, platform: Platform
) -> None:
    version = (await registry.app(platform))["version"]
    call = registry.call("the same")

    async def one() -> Document:
        return await app_settings.change(platform, call, registry.app_id, {"approval_ttl_hours": 5}, version)

    outcomes = await asyncio.gather(*(one() for _ in range(5)))
    assert {outcome["version"] for outcome in outcomes} == {version + 1}
    await change(registry, platform, approval_ttl_hours=6)
    assert (await one())["settings"]["approval_ttl_hours"] == 6
    assert len(await registry.audit(platform, "settings_updated")) == 2


async def test_a_bad_value_is_told_before_a_stale_version_and_that_before_a_taken_name(
    registry: Registry, platform: Platform
) -> None:
    await registry.make(platform, "taken")
    refusals: list[ErrorCode] = []
    patches: list[dict[str, Any]] = [
        {"canonical_env_id": "nowhere", "name": "taken", "version": 99},
        {"name": "taken", "version": 99},
        {"name": "taken"},
    ]
    for patch in patches:
        with pytest.raises(DomainError) as refused:
            await change(registry, platform, **patch)
        refusals.append(refused.value.code)
    assert refusals == [ErrorCode.VALIDATION_ERROR, ErrorCode.STALE_WRITE, ErrorCode.CONFLICT]


async def test_a_webhooks_secret_is_kept_encrypted_and_stays_until_it_is_named(registry: Registry, platform: Platform) -> None:
    hook = {"url": "https://hooks.example.com", "events": ["*"]}
    secret = "a secret of the webhook"
    await change(registry, platform, webhook={**hook, "secret": secret})
    after = await change(registry, platform, webhook={**hook, "events": ["release.published"]})
    kept = SecretRef.model_validate(after["settings"]["webhook"]["secret"])
    assert await unseal(platform, registry.app_id, {"webhook": kept}) == {"webhook": secret}
    events = await registry.audit(platform, "settings_updated")
    assert secret not in str(events)
    assert secret not in str(after)
    with pytest.raises(DomainError, match="mask"):
        await change(registry, platform, webhook={**hook, "secret": kept.mask})
    assert (await change(registry, platform, webhook={**hook, "secret": None}))["settings"]["webhook"]["secret"] is None


# -- Another integration branch


async def second_branch(platform: Platform) -> str:
    head = await platform.git.resolve("shop.git", "refs/heads/main")
    assert head is not None
    platform.git.refs("shop.git")["refs/heads/next"] = head  # type: ignore[attr-defined]
    return head


async def test_another_branch_is_told_to_the_queue_and_releases_may_go_on(registry: Registry, platform: Platform) -> None:
    head = await second_branch(platform)
    after = await change(registry, platform, integration_branch="next")
    assert after["integration_branch"] == "next"
    assert after.get("closing") is None
    ((entity, update, command),) = registry.workflows.sent
    assert (entity, update, command.integration_sha) == (f"queue:{registry.app_id}", "published", head)


async def test_repeats_of_a_move_at_once_have_one_effect_and_leave_no_standstill(registry: Registry, platform: Platform) -> None:
    await second_branch(platform)
    version = (await registry.app(platform))["version"]
    call = registry.call("the same")
    work = [app_settings.change(platform, call, registry.app_id, {"integration_branch": "next"}, version) for _ in range(5)]
    outcomes = await asyncio.gather(*work)
    assert {outcome["integration_branch"] for outcome in outcomes} == {"next"}
    assert standstill.closing_conflict(await registry.app(platform)) is None
    assert len({command.id for _, _, command in registry.workflows.sent}) == 1
    assert len(await registry.audit(platform, "settings_updated")) == 1


async def test_a_branch_that_is_not_there_is_refused(registry: Registry, platform: Platform) -> None:
    for branch in ("nowhere", "conman/x", "../x"):
        with pytest.raises(DomainError) as refused:
            await change(registry, platform, integration_branch=branch)
        assert refused.value.code is ErrorCode.VALIDATION_ERROR


async def test_while_a_release_is_open_or_something_is_queued_the_branch_stays(registry: Registry, platform: Platform) -> None:
    await second_branch(platform)
    release = await registry.release(platform)
    with pytest.raises(DomainError, match="is open") as refused:
        await change(registry, platform, integration_branch="next")
    assert refused.value.code is ErrorCode.CONFLICT
    await platform.db["releases"].update_one({"_id": release}, {"$set": {"owned.state": "dropped"}})
    await platform.db["queues"].update_one({"_id": registry.app_id}, {"$set": {"owned.entries": [{"changeset_id": "c"}]}})
    with pytest.raises(DomainError, match="queued"):
        await change(registry, platform, integration_branch="next")
    assert (await registry.app(platform)).get("closing") is None
    assert registry.workflows.sent == []


async def test_a_move_whose_process_dies_is_finished_by_upkeep_and_nothing_is_published_before(
    registry: Registry, platform: Platform
) -> None:
    await second_branch(platform)
    with crash_at("settings.branch"):
        await change(registry, platform, integration_branch="next")
    assert standstill.closing_conflict(await registry.app(platform)) is not None
    await upkeep(platform)
    assert len(registry.workflows.sent) == 1
    assert standstill.closing_conflict(await registry.app(platform)) is None


async def test_a_move_that_died_before_its_write_is_undone_by_upkeep_and_can_be_asked_for_again(
    registry: Registry, platform: Platform
) -> None:
    await second_branch(platform)
    with crash_at("standstill.begun"):
        await change(registry, platform, integration_branch="next")
    await upkeep(platform)
    with pytest.raises(DomainError, match="try again in a moment"):
        await change(registry, platform, integration_branch="next")
    await age(registry, platform)
    await upkeep(platform)
    assert (await change(registry, platform, integration_branch="next"))["integration_branch"] == "next"


# -- The list of environments


async def test_the_list_is_kept_added_to_reordered_and_archived_by_one_event(registry: Registry, platform: Platform) -> None:
    before = await registry.app(platform)
    after = await relist(registry, platform, "UAT", "Staging", "Production")
    assert await shown(platform, after) == [("UAT", 0), ("Staging", 1), ("Production", 2)]
    assert after["version"] == before["version"] + 1
    staging = await environments.find(platform, after, after["environment_ids"][1])
    profile = await records.get(platform.db, "profiles", staging["runtime_profile_id"])
    assert (profile["content"]["name"], profile["content"]["kind"]) == ("Staging", "persistent_env")
    (event,) = await registry.audit(platform, "environments_updated")
    assert [one["name"] for one in event["before"]["environments"]] == ["Development", "QA", "UAT", "Production"]
    assert [one["name"] for one in event["after"]["environments"]] == ["UAT", "Staging", "Production"]
    archived = await platform.db["environments"].find({"app_id": registry.app_id, "archived": True}).to_list()
    assert sorted(row["name"] for row in archived) == ["Development", "QA"]
    copies = await platform.db["environments"].find({"app_id": registry.app_id, "archived": False}).sort("position", 1).to_list()
    assert [row["_id"] for row in copies] == after["environment_ids"]


async def test_the_canonical_environment_is_one_stored_value_for_list_and_settings(
    registry: Registry, platform: Platform
) -> None:
    after = await relist(registry, platform, "Production", "QA")
    assert after["settings"]["canonical_env_id"] == after["environment_ids"][1]
    changed = await change(registry, platform, canonical_env_id=after["environment_ids"][0])
    records_shown = await environment_records.environment_records(platform, changed)
    assert [row["is_canonical"] for row in records_shown] == [True, False]


async def test_the_same_list_again_writes_nothing(registry: Registry, platform: Platform) -> None:
    before = await registry.app(platform)
    after = await relist(registry, platform, "Development", "QA", "UAT", "Production")
    assert after["version"] == before["version"]
    assert await registry.audit(platform, "environments_updated") == []


async def test_repeats_of_a_replacement_make_one_environment_and_one_profile(registry: Registry, platform: Platform) -> None:
    app = await registry.app(platform)
    wanted, call = items(app, "New", "Production"), registry.call("the same")
    work = [environments.replace(platform, call, registry.app_id, wanted, app["version"]) for _ in range(5)]
    outcomes = await asyncio.gather(*work)
    again = await environments.replace(platform, call, registry.app_id, wanted, app["version"])
    assert {tuple(outcome["environment_ids"]) for outcome in [*outcomes, again]} == {tuple(again["environment_ids"])}
    assert await platform.db["environments"].count_documents({"app_id": registry.app_id, "name": "New"}) == 1
    assert await platform.db["profiles"].count_documents({"app_id": registry.app_id, "content.name": "New"}) == 1
    assert len(await registry.audit(platform, "environments_updated")) == 1


async def test_of_settings_and_list_changed_on_one_version_exactly_one_is_taken(registry: Registry, platform: Platform) -> None:
    app = await registry.app(platform)
    wanted = items(app, "QA", "Production")
    outcomes = await asyncio.gather(
        registry.apart(lambda apart: environments.replace(apart, registry.call(), registry.app_id, wanted, app["version"])),
        registry.apart(
            lambda apart: app_settings.change(
                apart, registry.call(), registry.app_id, {"canonical_env_id": app["environment_ids"][0]}, app["version"]
            )
        ),
        return_exceptions=True,
    )
    assert sorted(code_of(outcome) for outcome in outcomes) == ["done", "stale_write"]
    after = await registry.app(platform)
    assert after["settings"]["canonical_env_id"] in after["environment_ids"]
    listed = [environment["id"] for environment in after["environments"]]
    refused_closing = [one for one in app["environment_ids"] if one in listed and (await take(registry, platform, one)).closed]
    assert refused_closing == []


async def test_an_environment_with_an_active_deployment_is_not_left_out_and_nothing_changes(
    registry: Registry, platform: Platform
) -> None:
    app = await registry.app(platform)
    taken = await take(registry, platform, app["environment_ids"][0])
    assert taken.holder is None
    with pytest.raises(DomainError, match="active deployment") as refused:
        await relist(registry, platform, "QA", "Production")
    assert refused.value.code is ErrorCode.CONFLICT
    assert refused.value.details["environment_id"] == app["environment_ids"][0]
    assert (await registry.app(platform))["version"] == app["version"]
    assert (await take(registry, platform, app["environment_ids"][2])).closed is None


async def test_of_a_deployment_and_its_environments_archiving_at_the_same_moment_exactly_one_wins(
    registry: Registry, platform: Platform
) -> None:
    names = [f"E{number}" for number in range(9)]
    await relist(registry, platform, *names)

    async def archived(wanted: list[dict[str, Any]], version: int) -> Document:
        return await registry.apart(lambda apart: environments.replace(apart, registry.call(), registry.app_id, wanted, version))

    async def deployed(environment_id: str, deployment_id: str) -> locks.Taken:
        wanted = {environment_id: deployment_id}
        return await registry.apart(lambda apart: locks.take(apart.db, registry.app_id, wanted, now()))

    for doomed in names[:-1]:
        app = await registry.app(platform)
        rest = [environment["name"] for environment in app["environments"] if environment["name"] != doomed]
        environment_id = next(environment["id"] for environment in app["environments"] if environment["name"] == doomed)
        deployment_id = await registry.deployment(platform, environment_id)
        outcome, taken = await asyncio.gather(
            archived(items(app, *rest), app["version"]), deployed(environment_id, deployment_id), return_exceptions=True
        )
        assert isinstance(taken, locks.Taken)
        is_listed = environment_id in (await registry.app(platform))["environment_ids"]
        assert (taken.closed is None) == is_listed == isinstance(outcome, DomainError)


@pytest.mark.parametrize(
    "point", ["environments.listed", "environments.profiles", "environments.relinked", "environments.copied"]
)
@pytest.mark.parametrize("finisher", ["upkeep", "a reader"])
async def test_a_replacement_whose_process_dies_after_its_write_is_finished(
    registry: Registry, platform: Platform, point: str, finisher: str
) -> None:
    with crash_at(point):
        await relist(registry, platform, "QA", "Staging", "Production")
    if finisher == "upkeep":
        await upkeep(platform)
    app = await registry.app(platform)
    assert await shown(platform, app) == [("QA", 0), ("Staging", 1), ("Production", 2)]
    assert (await registry.app(platform)).get("unsettled") is None
    active = await platform.db["environments"].find({"app_id": registry.app_id, "archived": False}).to_list()
    assert {row["_id"] for row in active} == set(app["environment_ids"])
    assert len(await registry.audit(platform, "environments_updated")) == 1


async def test_a_replacement_that_dies_before_its_write_leaves_the_list_and_upkeep_lets_deployments_go_on(
    registry: Registry, platform: Platform
) -> None:
    app = await registry.app(platform)
    with crash_at("environments.closed"):
        await relist(registry, platform, "QA", "UAT", "Production")
    assert (await take(registry, platform, app["environment_ids"][0])).closed is not None
    await upkeep(platform)
    assert (await take(registry, platform, app["environment_ids"][0])).closed is not None, "it is too young to be given up"
    await age(registry, platform)
    await upkeep(platform)
    assert (await take(registry, platform, app["environment_ids"][0])).closed is None
    late = environments.replace(platform, registry.call(), registry.app_id, items(app, "QA", "Production"), app["version"])
    with pytest.raises(DomainError) as refused:
        await late
    assert refused.value.code is ErrorCode.STALE_WRITE, "its late write must not archive what may be deployed to again"


async def test_upkeep_keeps_what_was_archived_closed(registry: Registry, platform: Platform) -> None:
    app = await registry.app(platform)
    with crash_at("environments.listed"):
        await relist(registry, platform, "QA", "UAT", "Production")
    await age(registry, platform)
    await upkeep(platform)
    assert (await take(registry, platform, app["environment_ids"][0])).closed == app["environment_ids"][0]
    document = await platform.db["locks"].find_one({"_id": registry.app_id})
    assert document is not None
    assert document["undecided"] == []


async def test_another_profile_where_something_was_deployed_is_an_emergency_edit_and_before_that_an_ordinary_one(
    registry: Registry, platform: Platform
) -> None:
    app = await registry.app(platform)
    development, qa = app["environments"][0], app["environments"][1]
    deployed = {"$set": {"owned.current_deployment_id": "a deployment"}}
    await platform.db["environments"].update_one({"_id": development["id"]}, deployed)
    wanted = items(app, "Development", "QA", "UAT", "Production")
    wanted[0]["runtime_profile_id"], wanted[1]["runtime_profile_id"] = qa["runtime_profile_id"], development["runtime_profile_id"]
    await environments.replace(platform, registry.call(), registry.app_id, wanted, app["version"])
    events = await platform.db["audit"].find({"action": "emergency_edited"}).to_list()
    assert [event["after"]["environment_ids"] for event in events] == [[development["id"]]]
    linked = await records.get(platform.db, "profiles", qa["runtime_profile_id"])
    assert linked["emergency"] == {development["id"]: linked["revision_number"]}


async def test_while_a_deployment_runs_its_environment_keeps_its_profile(registry: Registry, platform: Platform) -> None:
    app = await registry.app(platform)
    environment = app["environments"][0]
    deployment = await registry.deployment(platform, environment["id"], "running")
    await locks.take(platform.db, registry.app_id, {environment["id"]: deployment}, now())
    await locks.mark_running(platform.db, registry.app_id, environment["id"], deployment)
    wanted = items(app, "Development", "QA", "UAT", "Production")
    wanted[0]["runtime_profile_id"] = app["environments"][1]["runtime_profile_id"]
    with pytest.raises(DomainError) as refused:
        await environments.replace(platform, registry.call(), registry.app_id, wanted, app["version"])
    assert refused.value.code is ErrorCode.ENVIRONMENT_LOCKED
    assert refused.value.details == {"deployment_id": deployment}


async def test_a_changed_list_counts_for_a_release_from_its_next_deployment_on(registry: Registry, platform: Platform) -> None:
    """`spec.md` 3: `deployed_full` is success in every listed environment."""
    app = await registry.app(platform)
    first, last = app["environment_ids"][0], app["environment_ids"][3]
    owned = {"app_id": registry.app_id, "state": "published", "published_sha": "a" * 40, "version": 0, "commands": []}
    release = await registry.release(platform, **owned)

    async def deployed(environment_id: str) -> str:
        deployment = await registry.deployment(platform, environment_id, "succeeded")
        ended = {"kind": "deployment_ended", "app_id": registry.app_id, "environment_id": environment_id, "at": now()}
        entry = {**ended, "id": deployment, "release_id": release, "deployment_id": deployment}
        fields = {"release_id": release, "outgoing": [entry]}
        await platform.db["deployments"].update_one({"_id": deployment}, {"$set": fields})
        await deliver(platform.db, "deployments", await records.get(platform.db, "deployments", deployment))
        return (await records.get(platform.db, "releases", release))["owned"]["state"]

    assert await deployed(first) == "deployed_partial"
    await relist(registry, platform, "Development", "Production")
    assert (await records.get(platform.db, "releases", release))["owned"]["state"] == "deployed_partial"
    assert await deployed(last) == "deployed_full"


# -- The end of an app


async def test_an_archived_app_says_so_once_and_what_runs_for_it_is_told_to_end(registry: Registry, platform: Platform) -> None:
    queued, running, ended = [await registry.job(platform, state) for state in ("queued", "running", "succeeded")]
    await archive.archive(platform, registry.call(), registry.app_id)
    app = await registry.app(platform)
    assert app["archived"]
    assert app.get("closing") is None
    (event,) = await registry.audit(platform, "archived")
    assert sorted(event["after"]["canceled_job_ids"]) == sorted([queued, running])
    assert {f"job:{queued}", f"job:{running}"} <= set(registry.workflows.canceled)
    assert f"job:{ended}" not in registry.workflows.canceled
    assert (await take(registry, platform, app["environment_ids"][0])).closed == registry.app_id


async def test_upkeep_ends_what_a_late_request_began_and_stops_looking_when_none_can_come(
    registry: Registry, platform: Platform
) -> None:
    await archive.archive(platform, registry.call(), registry.app_id)
    late = await registry.job(platform, "queued")
    await upkeep(platform)
    assert f"job:{late}" in registry.workflows.canceled
    await platform.db["jobs"].update_one({"_id": late}, {"$set": {"state": "canceled"}})
    old = later(now(), -archive.LAST_REQUESTS * 2)
    await platform.db["apps"].update_one({"_id": registry.app_id}, {"$set": {"ending.at": old}})
    await upkeep(platform)
    assert (await registry.app(platform)).get("ending") is None


@pytest.mark.parametrize(
    "owned",
    [{"state": "assembling"}, {"publishing": {"command_id": "x"}}, {"state": "published", "told": False}],
    ids=["assembling", "publishing", "telling"],
)
async def test_while_a_release_assembles_or_publishes_an_app_is_not_archived_and_goes_on(
    registry: Registry, platform: Platform, owned: dict[str, Any]
) -> None:
    release = await registry.release(platform, **owned)
    with pytest.raises(DomainError, match="assembles or publishes") as refused:
        await archive.archive(platform, registry.call(), registry.app_id)
    assert (refused.value.code, refused.value.details) == (ErrorCode.CONFLICT, {"release_id": release})
    app = await registry.app(platform)
    assert (app["archived"], app.get("closing")) == (False, None)
    assert (await take(registry, platform, app["environment_ids"][0])).closed is None


async def test_while_a_deployment_is_active_an_app_is_not_archived_and_goes_on(registry: Registry, platform: Platform) -> None:
    app = await registry.app(platform)
    await take(registry, platform, app["environment_ids"][1])
    with pytest.raises(DomainError, match="deployment of the app is active"):
        await archive.archive(platform, registry.call(), registry.app_id)
    assert (await take(registry, platform, app["environment_ids"][0])).closed is None
    assert standstill.closing_conflict(await registry.app(platform)) is None


@pytest.mark.parametrize("wins", ["release", "archive"])
async def test_a_release_that_has_recorded_its_intent_is_waited_for_and_exactly_one_wins(
    registry: Registry, platform: Platform, wins: str
) -> None:
    release = await registry.release(platform, edit={"kind": "publish"})
    work = asyncio.create_task(archive.archive(platform, registry.call(), registry.app_id))

    async def begun() -> bool:
        return (await registry.app(platform)).get("closing") is not None

    await wait_for(begun, "the standstill")
    gone_on = {"owned.edit": None, "owned.publishing": {"command_id": "x"}} if wins == "release" else {"owned.edit": None}
    await platform.db["releases"].update_one({"_id": release}, {"$set": gone_on})
    (outcome,) = await asyncio.gather(work, return_exceptions=True)
    assert isinstance(outcome, DomainError) == (wins == "release")
    assert (await registry.app(platform))["archived"] == (wins == "archive")


async def test_a_release_that_reads_the_app_after_a_standstill_began_is_refused_before_the_queue_is_asked(
    registry: Registry, platform: Platform
) -> None:
    activities = CallActivities(platform.commands.client, platform.db)
    await standstill.begin(platform, registry.call(), registry.app_id, "archive")
    wanted = QueueCall(app_id=registry.app_id, update="reserve", command_id="x", needs_open_app=True)
    answer = await activities.call_queue(wanted)
    assert answer.refusal is not None
    assert answer.refusal["code"] == "conflict"


async def test_a_repeat_of_archiving_finds_it_done_and_another_request_is_told(registry: Registry, platform: Platform) -> None:
    call = registry.call("the same")
    await asyncio.gather(*(archive.archive(platform, call, registry.app_id) for _ in range(4)))
    await archive.archive(platform, call, registry.app_id)
    assert len(await registry.audit(platform, "archived")) == 1
    with pytest.raises(DomainError, match="archived"):
        await archive.archive(platform, registry.call(), registry.app_id)


@pytest.mark.parametrize("point", ["standstill.begun", "archive.closed"])
async def test_an_archiving_that_dies_before_its_write_is_undone_by_upkeep(
    registry: Registry, platform: Platform, point: str
) -> None:
    app = await registry.app(platform)
    with crash_at(point):
        await archive.archive(platform, registry.call(), registry.app_id)
    await age(registry, platform)
    with crash_at("standstill.ended"):
        await upkeep(platform)
    await upkeep(platform)
    assert standstill.closing_conflict(await registry.app(platform)) is None
    assert (await take(registry, platform, app["environment_ids"][0])).closed is None


@pytest.mark.parametrize("point", ["archive.written", "archive.revoked", "archive.canceled"])
async def test_an_archiving_that_dies_after_its_write_is_finished_by_upkeep(
    registry: Registry, platform: Platform, point: str
) -> None:
    job = await registry.job(platform, "running")
    with crash_at(point):
        await archive.archive(platform, registry.call(), registry.app_id)
    await age(registry, platform)
    await upkeep(platform)
    app = await registry.app(platform)
    assert app["archived"]
    assert f"job:{job}" in registry.workflows.canceled
    assert (await take(registry, platform, app["environment_ids"][0])).closed == registry.app_id


async def test_settings_that_change_while_an_app_is_archived_cost_it_nothing(registry: Registry, platform: Platform) -> None:
    version = (await registry.app(platform))["version"]
    outcomes = await asyncio.gather(
        registry.apart(lambda apart: archive.archive(apart, registry.call(), registry.app_id)),
        registry.apart(
            lambda apart: app_settings.change(apart, registry.call(), registry.app_id, {"approval_ttl_hours": 7}, version)
        ),
        return_exceptions=True,
    )
    assert outcomes[0] is None
    app = await registry.app(platform)
    assert app["archived"]
    assert (code_of(outcomes[1]) == "done") == (app["settings"]["approval_ttl_hours"] == 7)

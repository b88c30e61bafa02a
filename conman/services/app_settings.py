"""Changing an app's settings, its name and its integration branch, in one guarded write with its audit (`spec.md` 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo.errors import DuplicateKeyError

from conman.domain.app import BRANCHES, AppSettings, check_branch_name
from conman.domain.app_settings import KnownToSettings, change_settings, changed_settings
from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.messages import PublishedCommand
from conman.domain.release import OPEN
from conman.domain.secrets import SecretRef, mask
from conman.domain.times import later
from conman.domain.webhook_signature import BOTH_SIGN, secret_problem
from conman.faults import fault_point
from conman.services import standstill
from conman.services.apps import integration_head
from conman.services.call import Call, has_happened
from conman.services.platform import Platform
from conman.services.profiles import PROFILES
from conman.services.secrets import seal
from conman.settings.programs import ProgramKind
from conman.store import records, webhook_feed
from conman.store.database import Database, Document
from conman.workflows.client import Commands

WEBHOOK_SECRET = "webhook"
"""The name of a webhook's secret among those that are sealed under the app's id."""
_SECRETS = {"secret", "previous", "previous_until"}


async def change(platform: Platform, call: Call, app_id: str, patch: Mapping[str, Any], version: int) -> Document:
    """Apply a flat patch; returns the app's record. One that changes nothing writes nothing.

    Raises `validation_error`, `stale_write`, and `conflict` for a name that another app has, or for another integration branch
    while a release is open or the queue is not empty.
    """
    app = await records.get(platform.db, "apps", app_id, what="app")
    if await has_happened(platform.db, call, app):
        return await _told(platform.db, platform.commands, app)
    given = dict(patch)
    name, branch = given.pop("name", None), given.pop("integration_branch", None)
    for field in ("name", "integration_branch"):
        if field in patch and patch[field] is None:
            raise invalid(field, "can't be null")
    before = AppSettings.model_validate(app["settings"])
    given, sealing = _with_sealed_secret(call, before, given)
    after = change_settings(before, given, await _known(platform, app))
    if branch is not None and branch != app["integration_branch"]:
        await _check_branch(platform, app, branch)
    if app["version"] != version:
        raise records.stale(app["version"])
    old, new = changed_settings(before, after)
    for field, value in (("name", name), ("integration_branch", branch)):
        if value is not None and value != app[field]:
            old[field], new[field] = app[field], value
    if not new:
        return app
    if sealing is not None:
        await seal(platform, app_id, {WEBHOOK_SECRET: sealing}, {WEBHOOK_SECRET: _value_id(call)})
    settings = after.model_dump(mode="json")
    fields: Document = {f"settings.{field}": settings[field] for field in new if field in settings}
    fields |= {field: new[field] for field in ("name", "integration_branch") if field in new}
    if "webhook" in new:
        # What others missed who had not heard of an earlier change is still to be found (store/webhook_feed.py).
        since = app.get("webhook_changed_from") if before.webhook is not None else None
        fields |= {"webhook_changed_from": since or call.at, "webhook_changed_at": call.at}
    event = Event("app", app_id, "settings_updated", before=old, after=new)
    if "integration_branch" not in new:
        return await _write(platform, call, app_id, fields, event, version)
    return await _move(platform, call, app_id, fields, event, version)


async def _known(platform: Platform, app: Document) -> KnownToSettings:
    profiles = platform.db[PROFILES].find({"app_id": app["_id"], "deleted": {"$ne": True}}, {"_id": 1})
    return KnownToSettings(
        environment_ids=app["environment_ids"],
        profile_ids=frozenset([row["_id"] async for row in profiles]),
        suites=platform.settings.program_names(ProgramKind.MSUITE),
        webhook_networks=platform.settings.webhook_networks,
    )


def _value_id(call: Call) -> str:
    return call.derived_id("secret", WEBHOOK_SECRET)


def _with_sealed_secret(call: Call, before: AppSettings, given: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The patch with a webhook's secret as a reference, and the value to seal for it; a secret that is not named stays.

    One that is replaced goes on signing beside the new one for a time.
    """
    webhook = given.get("webhook")
    if webhook is None:
        return given, None
    kept = before.webhook.secret if before.webhook is not None else None
    if "secret" not in webhook:
        secrets = before.webhook.model_dump(include=_SECRETS) if before.webhook is not None else {}
        return {**given, "webhook": {**webhook, **secrets}}, None
    secret = webhook["secret"]
    if secret is None:
        return given, None
    if kept is not None and secret == kept.mask:
        raise invalid("webhook.secret", "is the mask that was shown: leave it out to keep the secret, or give a new one")
    problem = secret_problem(secret)
    if problem is not None:
        raise invalid("webhook.secret", problem)
    ref = SecretRef(value_id=_value_id(call), mask=mask(secret))
    secrets = {"secret": ref.model_dump()}
    if kept is not None:
        secrets |= {"previous": kept.model_dump(), "previous_until": later(call.at, BOTH_SIGN)}
    return {**given, "webhook": {**webhook, **secrets}}, secret


async def _write(platform: Platform, call: Call, app_id: str, fields: Document, event: Event, version: int) -> Document:
    try:
        changed = await records.update_part(
            platform.db,
            "apps",
            app_id,
            set_fields=fields,
            at=call.at,
            outgoing=call.audit(event, app_id=app_id),
            expected_version=version,
        )
        webhook_feed.read_again(platform.db)
        return changed
    except DuplicateKeyError as error:
        raise DomainError(ErrorCode.CONFLICT, "Another app has this name: choose another one.", {"field": "name"}) from error
    except DomainError:
        there = await records.get(platform.db, "apps", app_id, what="app")
        if await has_happened(platform.db, call, there):  # a repeat of this request was faster
            return there
        raise


# -- Another integration branch


async def _check_branch(platform: Platform, app: Document, branch: str) -> None:
    check_branch_name(branch)
    if await platform.git.resolve(app["repo_path"], BRANCHES + branch) is None:
        raise invalid("integration_branch", f"{app['repo_path']} has no branch {branch}")


async def _move(platform: Platform, call: Call, app_id: str, fields: Document, event: Event, version: int) -> Document:
    """Releases are composed on the branch's head and land on it, so none may be open meanwhile; the queue is told after it."""
    await standstill.begin(platform, call, app_id, "integration_branch")
    try:
        await standstill.wait_for_releases(platform, app_id)
        await _refuse_work(platform, app_id)
        app = await records.get(platform.db, "apps", app_id, what="app")
        head = await integration_head(platform, {**app, **fields})
        changed = await _write(platform, call, app_id, {**fields, "closing.moved_to": head}, event, version)
    except DomainError:
        await standstill.abandon(platform.db, app_id, call.command_id)
        raise
    fault_point("settings.branch")
    if (changed.get("closing") or {}).get("moved_to") is None:  # a repeat of this request was faster, and has told the queue
        await standstill.abandon(platform.db, app_id, call.command_id)
    return await _told(platform.db, platform.commands, changed)


async def _refuse_work(platform: Platform, app_id: str) -> None:
    states = [state.value for state in OPEN]
    release = await platform.db["releases"].find_one({"app_id": app_id, "owned.created": True, "owned.state": {"$in": states}})
    if release is not None:
        raise DomainError(
            ErrorCode.CONFLICT,
            f"Release {release['owned']['tag']} is open: publish or drop it before the integration branch changes.",
            {"release_id": release["_id"]},
        )
    queue = await platform.db["queues"].find_one({"_id": app_id}) or {"owned": {"entries": []}}
    if queue["owned"]["entries"]:
        raise DomainError(
            ErrorCode.CONFLICT,
            "Changesets are queued for the present integration branch: release them, or return them to draft, before it changes.",
            {"changeset_ids": [entry["changeset_id"] for entry in queue["owned"]["entries"]]},
        )


async def _told(db: Database, commands: Commands, app: Document) -> Document:
    """Tell the queue the head of another branch: what has entered it meanwhile is judged again there. It may be told twice."""
    closing = app.get("closing") or {}
    if closing.get("moved_to") is None:
        return app
    command = PublishedCommand(
        id=f"branch:{closing['by']}",
        not_after=commands.not_after(),
        release_id=f"branch:{closing['by']}",
        integration_sha=closing["moved_to"],
    )
    await commands.send(commands.queue_start(app["_id"]), "published", command)
    fault_point("settings.told")
    await db["apps"].update_one({"_id": app["_id"], "closing.by": closing["by"]}, {"$unset": {"closing": ""}})
    return await records.get(db, "apps", app["_id"], what="app")


async def tell_queues(db: Database, commands: Commands) -> int:
    """Finish what crashes have left of moves to another branch. Returns in how many apps."""
    found = await db["apps"].find({"closing.moved_to": {"$exists": True}}).to_list()
    for app in found:
        await _told(db, commands, app)
    return len(found)

"""What a deployment would do in one environment, told without changing anything (`spec.md` 12)."""

from __future__ import annotations

from typing import Any

from conman.domain import deploy_rules as rules
from conman.domain import migrations as migration_rules
from conman.domain.deploy_messages import Blocker
from conman.domain.deploy_rules import Wanted
from conman.domain.drift_record import DriftState
from conman.domain.overrides import overridden, overridden_names
from conman.domain.profile import Profile, Variable, effective_variables
from conman.domain.roles import Role
from conman.git.adapter import ChangedPath, ChangeStatus, EntryType
from conman.services import diffs, semantic_diffs
from conman.services.applied import emergency_of
from conman.services.arrivals import REVISIONS, arriving_of
from conman.services.clock import now
from conman.services.deploy_start import approval_role
from conman.services.diffs import Sides
from conman.services.drift import drift_view, record_of
from conman.services.migrations import executions_of
from conman.services.override_contents import contents_of
from conman.services.platform import Platform
from conman.services.profiles import PROFILES
from conman.services.releases import refuse_unknown_release
from conman.services.surroundings import Scene, look
from conman.store import records
from conman.store.database import Database, Document

MOST_SHOWN = 100
"""Files, and semantic changes, that a plan shows; the numbers beside them are those of the whole."""


async def plan(platform: Platform, app: Document, environment_id: str, release_id: str) -> dict[str, Any]:
    """All that a deployment of this release here would do now, and all that stands in its way, by the deciders that refuse it.

    Raises `validation_error` for a release that is none of the app's.
    """
    release = refuse_unknown_release(await records.find(platform.db, "releases", release_id, app_id=app["_id"]))
    at = now()
    scene = await look(platform.db, app, release, at)
    environment = scene.environment(environment_id)
    here = scene.of(environment_id, at)
    wanted = Wanted(release_id=release_id, start_at=at)
    reasons = rules.exceptional_reasons(wanted, here)
    asked = rules.approvals_asked(reasons, here.required)
    blockers = [one.blocker() for one in rules.hindrances(wanted, here)]
    blockers += await _of_drift(platform.db, scene, environment)
    before, after, arriving_names = await _profiles(platform.db, scene, environment, release_id)
    files, semantic = await _changes(platform, scene, environment)
    return {
        "environment_id": environment_id,
        "release_id": release_id,
        "files": files,
        "semantic": semantic,
        "variables": _variables(scene.app, before, after, arriving_names),
        "migrations": await _migrations(platform, scene, environment, after),
        "approvals": {"count": asked.required, "role": approval_role(asked), "exceptional_reasons": reasons},
        "blockers": [one.model_dump(mode="json", exclude_none=True) for one in blockers],
    }


# -- Files


async def _changes(platform: Platform, scene: Scene, environment: Document) -> tuple[dict[str, Any], dict[str, Any]]:
    """The raw and the semantic diff against what the environment runs, as those of a changeset, their first page."""
    git, repo = platform.git, scene.app["repo_path"]
    head = scene.release.published_sha or scene.release.candidate_sha
    base = await _running_sha(platform.db, environment)
    if head is None:
        nothing = {"stats": {"files": 0, "additions": 0, "deletions": 0}, "files": []}
        empty = semantic_diffs.semantic_record(await semantic_diffs.semantic_diff_of(git, repo, []), base, "", 1, MOST_SHOWN)
        return {"base_sha": base, "head_sha": None, **nothing}, {**empty["data"], "headSha": None}
    if base is not None:
        sides = Sides(base, head)
        raw = await diffs.raw_diff(git, repo, sides, 1, MOST_SHOWN)
        semantic = await semantic_diffs.semantic_page(git, repo, sides, 1, MOST_SHOWN)
        return raw["data"], semantic["data"]
    added = await _all_of(platform, repo, head)
    found = await semantic_diffs.semantic_diff_of(git, repo, added)
    return _all_new(added, head), semantic_diffs.semantic_record(found, None, head, 1, MOST_SHOWN)["data"]


async def _running_sha(db: Database, environment: Document) -> str | None:
    release_id = environment["owned"].get("current_release_id")
    if release_id is None:
        return None
    return (await records.get(db, "releases", release_id, what="release"))["owned"]["published_sha"]


async def _all_of(platform: Platform, repo: str, head: str) -> list[ChangedPath]:
    """Every file of a commit, as new where nothing is yet."""
    entries = await platform.git.list_tree(repo, head, recursive=True)
    return [
        ChangedPath(
            path=entry.path,
            old_path=None,
            status=ChangeStatus.ADDED,
            old_blob_id=None,
            new_blob_id=entry.blob_id,
            old_mode=None,
            new_mode=entry.mode,
        )
        for entry in entries
        if entry.type is not EntryType.TREE
    ]


def _all_new(added: list[ChangedPath], head: str) -> dict[str, Any]:
    """The raw diff of an environment in which nothing is: the files by name, without their content and its lines."""
    rows = [diffs.FileDiff(change=one, additions=0, deletions=0, binary=False, patch="") for one in added[:MOST_SHOWN]]
    return {
        "base_sha": None,
        "head_sha": head,
        "stats": {"files": len(added), "additions": 0, "deletions": 0},
        "files": [{**diffs.file_diff_record(row, ""), "truncated": True} for row in rows],
    }


# -- Profile


async def _profiles(
    db: Database, scene: Scene, environment: Document, release_id: str
) -> tuple[Profile | None, Profile, frozenset[str]]:
    """The profile that was applied last, the one that a deployment brings, and the names that arrive with the release."""
    applied_id = environment["owned"].get("applied_profile_revision_id")
    applied = await records.find(db, REVISIONS, applied_id) if applied_id is not None else None
    document = await records.get(db, PROFILES, environment["runtime_profile_id"], what="runtime profile")
    before = Profile.model_validate(applied["content"]) if applied is not None else None
    after = Profile.model_validate(document["content"])
    if scene.release.published_sha is None:
        return before, after, frozenset()
    found = await arriving_of(db, document, release_id)
    contents = await contents_of(db, [one for arrival in found for one in arrival.overrides])
    return before, overridden(after, contents), overridden_names(contents)


def _variables(app: Document, before: Profile | None, after: Profile, arriving_names: frozenset[str]) -> dict[str, Any]:
    """The effective variables before and after, each with where it comes from; secrets masked."""
    defaults = app["settings"]["env_defaults"]
    old = {one.key: one for one in effective_variables(defaults, before)} if before is not None else {}
    new = {one.key: one for one in effective_variables(defaults, after, arriving_names)}
    changed = sorted(key for key in old.keys() | new.keys() if _differs(key, old, new, before, after))
    return {
        "before": [one.record() for one in old.values()],
        "after": [one.record() for one in new.values()],
        "changed": changed,
    }


def _differs(key: str, old: dict[str, Variable], new: dict[str, Variable], before: Profile | None, after: Profile) -> bool:
    """Two secrets differ unless they are the same kept value: their masks may be alike."""
    one, other = old.get(key), new.get(key)
    if one is None or other is None or (one.value, one.secret) != (other.value, other.secret):
        return True
    return one.secret and before is not None and before.secrets.get(key) != after.secrets.get(key)


async def _migrations(platform: Platform, scene: Scene, environment: Document, after: Profile) -> list[dict[str, Any]]:
    """The migrations that would run, in their order."""
    head = scene.release.published_sha
    if after.migrations is None or head is None:
        return []
    entries = await platform.git.list_tree(scene.app["repo_path"], head, recursive=True)
    blobs = {entry.path: entry.blob_id for entry in entries if entry.type is EntryType.BLOB}
    wanted = migration_rules.in_order(after.migrations.repo_paths, blobs)
    todo = migration_rules.plan(wanted, await executions_of(platform.db, environment["_id"]))
    return [{**one.model_dump(mode="json"), "command": after.migrations.command_ref} for one in todo.pending]


# -- Drift


async def _of_drift(db: Database, scene: Scene, environment: Document) -> list[Blocker]:
    """What the last look at the environment found, and an edit of its profile by hand: they hold a deployment that has begun."""
    found: list[Blocker] = []
    manager = Role.CONFIG_MANAGER.value
    view = drift_view(environment)
    differences = [item for item in view["report"] if item["kind"] != "emergency_edit"]
    if view["state"] == DriftState.DRIFTED.value and differences:
        message = (
            f"{environment['name']} differs in {len(differences)} places from what was last applied there (seen at "
            f"{view['checked_at']}): mend it, or take the values over by a drift-fix changeset."
        )
        found.append(Blocker(code="drift", message=message, who=manager))
    applied_id = environment["owned"].get("applied_profile_revision_id")
    applied = await records.find(db, REVISIONS, applied_id) if applied_id is not None else None
    cleared = record_of(environment).cleared_revision_id
    edit = await emergency_of(db, scene.app, environment, applied, [cleared] if cleared is not None else [])
    if edit is not None:
        message = f"The profile of {environment['name']} was edited by hand since the last deployment: deploy, then revalidate."
        found.append(Blocker(code="emergency_edit", message=message, who=manager))
    return found

"""Sync with the integration branch over HTTP: rebase, merge, conflicts, resolutions (`spec.md` 7, `api.md` 3)."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.api.api_git import commit_outside, commits, git
from tests.support.conman_stack import World, assert_error, b64, last

SHARED = "entities/shared.txt"
SETTINGS = "entities/settings.json"


async def sync(world: World, workspace: str, **body: Any) -> dict[str, Any]:
    return await world.ann.ok("POST", f"{workspace}/sync-integration", json=body)


async def refused(world: World, workspace: str, **body: Any) -> list[dict[str, str]]:
    reply = await world.ann.send("POST", f"{workspace}/sync-integration", json=body)
    return assert_error(reply, 400, "validation_error")["details"]


def settings(**values: Any) -> str:
    return json.dumps({"name": "shop", "limit": 1, "colour": "red", **values}, indent=2) + "\n"


async def checkpoint(world: World, workspace: str) -> str:
    return (await world.ann.ok("POST", f"{workspace}/checkpoints", json={}))["commit_sha"]


async def clashing(world: World) -> str:
    """A workspace whose pending edits clash with main in a text, in two keys of a settings file, and in a deletion."""
    base: dict[str, str | bytes | None] = {SHARED: "one\n", SETTINGS: settings(), "entities/gone.json": "1", "keep.json": "1"}
    await commit_outside(world, base)
    workspace = await world.workspace()
    await world.save(workspace, SHARED, "mine\n")
    await world.save(workspace, SETTINGS, settings(limit=2, colour="green", mine=True))
    await world.save(workspace, "entities/gone.json", "2")
    await world.save(workspace, "entities/added.json", "1")
    theirs = {SHARED: "theirs\n", SETTINGS: settings(limit=3, colour="blue", name="store"), "entities/gone.json": None}
    await commit_outside(world, {**theirs, "keep.json": "2", ".gitignore": "*.tmp\n"})
    return workspace


def content(world: World, commit: str, path: str) -> str:
    return git(world, "show", f"{commit}:{path}")


async def test_a_workspace_that_has_the_integration_branch_is_clean_and_only_commits_what_is_pending(own: World) -> None:
    workspace = await own.workspace()
    before = await own.ann.get(workspace)
    assert await sync(own, workspace) == {"clean": True, "head_sha": before["head_sha"], "strategy": None, "conflicts": []}
    await own.save(workspace, "entities/a.json", "1")
    synced = await sync(own, workspace)
    shown = await own.ann.get(workspace)
    assert (synced["clean"], synced["strategy"], synced["head_sha"]) == (True, None, shown["head_sha"])
    assert (shown["pending_edits"], len(commits(own, shown))) == (0, 1)
    assert await own.audit(entity_type="workspace", entity_id=shown["id"], action="synced_integration") == []


async def test_what_is_behind_is_rebased_with_its_pending_edits(own: World) -> None:
    workspace = await own.workspace()
    await own.save(workspace, "entities/a.json", "1")
    await checkpoint(own, workspace)
    await own.save(workspace, "entities/b.json", "1")
    before = await own.ann.get(workspace)
    main = await commit_outside(own, {"entities/theirs.json": "1"})
    synced = await sync(own, workspace)
    shown = await own.ann.get(workspace)
    assert (synced["clean"], synced["strategy"], synced["head_sha"]) == (True, "rebase", shown["head_sha"])
    assert (shown["base_sha"], shown["behind"], shown["pending_edits"]) == (main, False, 0)
    assert len(commits(own, shown)) == 2
    assert git(own, "rev-list", "--merges", f"main..{shown['branch_name']}") == ""
    (event,) = await own.audit(entity_type="workspace", entity_id=shown["id"], action="synced_integration")
    assert event["before"] == {"head_sha": before["head_sha"], "base_sha": before["base_sha"]}
    assert event["after"] == {"head_sha": shown["head_sha"], "base_sha": main, "integration_sha": main, "strategy": "rebase"}


async def test_a_merge_that_is_asked_for_is_a_merge(own: World) -> None:
    workspace = await own.workspace()
    await own.save(workspace, "entities/a.json", "1")
    main = await commit_outside(own, {"entities/theirs.json": "1"})
    synced = await sync(own, workspace, strategy="merge")
    assert (synced["clean"], synced["strategy"]) == (True, "merge")
    assert git(own, "rev-parse", f"{synced['head_sha']}^2") == main


async def test_where_a_rebase_conflicts_and_a_merge_does_not_it_is_merged(own: World) -> None:
    """The branch takes back what clashes: each step alone conflicts, the whole does not."""
    await commit_outside(own, {SHARED: "one\n"})
    workspace = await own.workspace()
    for text in ("mine\n", "one\n"):
        await own.save(workspace, SHARED, text)
        await checkpoint(own, workspace)
    await commit_outside(own, {SHARED: "theirs\n"})
    only = await sync(own, workspace, strategy="rebase")
    assert (only["clean"], only["strategy"]) == (False, "rebase")
    assert [conflict["path"] for conflict in only["conflicts"]] == [SHARED]
    synced = await sync(own, workspace)
    assert (synced["clean"], synced["strategy"]) == (True, "merge")
    assert content(own, synced["head_sha"], SHARED) == "theirs"
    await commit_outside(own, {"entities/more.json": "1"})
    await own.save(workspace, "entities/a.json", "1")
    reply = await own.ann.send("POST", f"{workspace}/sync-integration", json={"strategy": "rebase"})
    assert "can't be rebased" in assert_error(reply, 409, "conflict")["message"]
    assert (await sync(own, workspace))["strategy"] == "merge"


async def test_conflicts_are_told_per_path_and_per_key_and_leave_the_branch(own: World) -> None:
    workspace = await clashing(own)
    first = await sync(own, workspace)
    assert (first["clean"], first["strategy"]) == (False, "merge")
    kinds = {conflict["path"]: conflict["kind"] for conflict in first["conflicts"]}
    assert kinds == {"entities/gone.json": "modify_delete", SETTINGS: "content", SHARED: "content"}
    assert [conflict["path"] for conflict in first["conflicts"]] == sorted(kinds)
    shown = await own.ann.get(workspace)
    assert (shown["head_sha"], shown["pending_edits"], shown["behind"]) == (first["head_sha"], 0, True)
    assert commits(own, shown) == ["Edit before the sync with main"]
    versions = {conflict["path"]: conflict for conflict in first["conflicts"]}
    raw = await own.ann.send("GET", f"{workspace}/files/raw", params={"path": SHARED, "blob_id": versions[SHARED]["theirs_blob"]})
    assert raw.content == b"theirs\n"
    assert versions["entities/gone.json"]["theirs_blob"] is None
    assert "keys" not in versions[SHARED]
    assert {key["pointer"]: key for key in versions[SETTINGS]["keys"]} == {
        "/limit": {"pointer": "/limit", "base": 1, "ours": 2, "theirs": 3},
        "/colour": {"pointer": "/colour", "base": "red", "ours": "green", "theirs": "blue"},
    }
    assert await sync(own, workspace) == first
    assert await own.ann.get(workspace) == shown


async def test_resolved_conflicts_become_one_merge_commit_of_both_heads(own: World) -> None:
    workspace = await clashing(own)
    told = await sync(own, workspace)
    keys = [{"pointer": "/limit", "take": "theirs"}, {"pointer": "/colour", "take": "value", "value": "amber"}]
    resolutions = [
        {"path": SHARED, "content": b64("both\n")},
        {"path": SETTINGS, "keys": keys},
        {"path": "entities/gone.json", "deleted": True},
    ]
    await own.save(workspace, "entities/late.json", "1")
    key = {"Idempotency-Key": uuid.uuid4().hex}
    body = {"resolutions": resolutions}
    synced = await own.ann.ok("POST", f"{workspace}/sync-integration", json=body, headers=key)
    assert synced == {"clean": True, "head_sha": synced["head_sha"], "strategy": "merge", "conflicts": []}
    assert await own.ann.ok("POST", f"{workspace}/sync-integration", json=body, headers=key) == synced
    head, main = synced["head_sha"], git(own, "rev-parse", "main")
    ours, theirs = git(own, "rev-parse", f"{head}^@").split()
    assert theirs == main
    assert git(own, "rev-parse", f"{ours}^") == told["head_sha"]
    assert content(own, head, SHARED) == "both"
    assert content(own, head, SETTINGS) + "\n" == settings(name="store", limit=3, colour="amber", mine=True)
    changed = git(own, "diff", "--name-only", main, head).splitlines()
    assert changed == ["entities/added.json", "entities/late.json", SETTINGS, SHARED]
    shown = await own.ann.get(workspace)
    assert (shown["head_sha"], shown["behind"], shown["pending_edits"]) == (head, False, 0)
    (event,) = await own.audit(entity_type="workspace", entity_id=shown["id"], action="synced_integration")
    assert event["before"]["head_sha"] == told["head_sha"]
    assert event["after"]["resolved_paths"] == [SHARED, SETTINGS, "entities/gone.json"]
    assert git(own, "for-each-ref", "refs/conman/scratch") == ""
    git(own, "fsck", "--strict")
    made = await own.ann.post(f"{own.path}/changesets", {"workspace_id": shown["id"], "title": "resolved"})
    submitted = await own.ann.post(f"{own.path}/changesets/{made['id']}/submit")
    assert submitted["revision"]["head_sha"] == head


WHOLE = [
    {"path": SHARED, "content": b64("x")},
    {"path": SETTINGS, "content": b64("{}")},
    {"path": "entities/gone.json", "deleted": True},
]


@pytest.mark.parametrize(
    ("resolutions", "words"),
    [
        (WHOLE[:2], "entities/gone.json: conflicts and is not resolved"),
        ([*WHOLE, {"path": "keep.json", "deleted": True}], "keep.json: does not conflict"),
        ([*WHOLE, {"path": ".gitignore", "deleted": True}], ".gitignore: does not conflict"),
        ([*WHOLE, WHOLE[0]], f"{SHARED}: is resolved twice"),
        ([*WHOLE[:2], {"path": "entities/gone.json"}], "needs one of"),
        ([*WHOLE[:2], {"path": "entities/gone.json", "deleted": False}], "needs one of"),
        ([*WHOLE[:2], {"path": "entities/gone.json", "deleted": True, "content": ""}], "needs one of"),
        ([{"path": SHARED, "content": "not base64!"}, *WHOLE[1:]], "must be base64"),
        ([{"path": SHARED, "keys": []}, *WHOLE[1:]], "has no keys"),
        ([WHOLE[0], {"path": SETTINGS, "keys": [{"pointer": "/limit", "take": "ours"}]}, WHOLE[2]], "/colour"),
        ([WHOLE[0], {"path": SETTINGS, "keys": [{"pointer": "/name", "take": "ours"}]}, WHOLE[2]], "/name"),
        ([WHOLE[0], {"path": SETTINGS, "keys": [{"pointer": "/limit", "take": "value"}]}, WHOLE[2]], "take: value"),
        ([WHOLE[0], {"path": SETTINGS, "keys": [{"pointer": "/limit", "take": "ours", "value": 1}]}, WHOLE[2]], "take: value"),
    ],
    ids=[
        "one missing",
        "one too many",
        "others' blocked path",
        "one twice",
        "nothing",
        "not deleted",
        "two ways",
        "no base64",
        "keys of a text",
        "a key missing",
        "a key too many",
        "no value",
        "a value too many",
    ],
)
async def test_resolutions_that_do_not_fit_are_refused_and_move_nothing(
    conflicting: tuple[World, str], resolutions: list[dict[str, Any]], words: str
) -> None:
    world, workspace = conflicting
    before = await world.ann.get(workspace)
    details = await refused(world, workspace, resolutions=resolutions)
    assert words in " ".join(item["message"] for item in details), details
    assert await world.ann.get(workspace) == before


@pytest.fixture(scope="module")
async def conflicting(other_app: World) -> tuple[World, str]:
    return other_app, await clashing(other_app)


async def test_guardrails_hold_for_resolutions(conflicting: tuple[World, str]) -> None:
    world, workspace = conflicting
    limit = world.app["settings"]["file_size_limit_bytes"]
    details = await refused(world, workspace, resolutions=[{"path": SHARED, "content": b64(b"x" * (limit + 1))}, *WHOLE[1:]])
    assert "allows" in details[0]["message"]
    await world.set(blocked_paths=["entities/shared.txt"])
    reply = await world.ann.send("POST", f"{workspace}/sync-integration", json={"resolutions": WHOLE})
    await world.set(blocked_paths=[".git/**"])
    assert_error(reply, 403, "blocked_path")


async def test_resolutions_without_conflicts_or_for_a_rebase_are_refused(own: World) -> None:
    workspace = await own.workspace()
    details = await refused(own, workspace, resolutions=WHOLE)
    assert "nothing conflicts" in details[0]["message"]
    details = await refused(own, workspace, resolutions=WHOLE, strategy="rebase")
    assert details[0]["field"] == "strategy"


async def test_a_rebase_of_others_work_carries_blocked_paths_along(own: World) -> None:
    workspace = await own.workspace()
    await own.save(workspace, "entities/a.json", "1")
    await commit_outside(own, {".gitignore": "x\n", ".github/ci.yml": "y\n"})
    synced = await sync(own, workspace)
    assert git(own, "diff", "--name-only", "main", synced["head_sha"]) == "entities/a.json"


async def test_a_submit_of_what_is_behind_syncs_it_into_one_commit(own: World) -> None:
    changeset = await own.changeset()
    workspace = f"{own.path}/workspaces/{(await own.ann.get(changeset))['workspace_id']}"
    main = await commit_outside(own, {"entities/theirs.json": "1"})
    submitted = await own.ann.post(f"{changeset}/submit")
    assert (submitted["revision"]["base_sha"], submitted["changeset"]["up_to_date"]) == (main, True)
    shown = await own.ann.get(workspace)
    assert (shown["head_sha"], len(commits(own, shown))) == (submitted["revision"]["head_sha"], 1)
    (event,) = await own.audit(entity_type="workspace", entity_id=last(workspace), action="synced_integration")
    assert event["after"]["strategy"] == "rebase"


async def test_a_submit_that_conflicts_is_out_of_date_keeps_the_edits_and_goes_through_once_resolved(own: World) -> None:
    workspace = await clashing(own)
    made = await own.ann.post(f"{own.path}/changesets", {"workspace_id": last(workspace), "title": "proposal"})
    submit = f"{own.path}/changesets/{made['id']}/submit"
    error = assert_error(await own.ann.send("POST", submit, json={}), 409, "out_of_date")
    assert sorted(conflict["path"] for conflict in error["details"]["conflicts"]) == sorted(row["path"] for row in WHOLE)
    assert (await sync(own, workspace, resolutions=WHOLE))["clean"]
    submitted = await own.ann.post(submit)
    assert submitted["changeset"]["state"] == "submitted"

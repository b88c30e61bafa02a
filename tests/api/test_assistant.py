"""Reviews of changesets over HTTP, by rules since the stack has no model; with one: `tests/services` (`spec.md` 8)."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.support.conman_stack import World, assert_error

BASE = {"entities/pay.json": json.dumps({"name": "pay", "retryCount": 3, "provider": "stripe-eu"}, indent=1)}


async def released(world: World, files: dict[str, str]) -> None:
    """Files that are on the integration branch."""
    release = await world.validated(await world.queued(files))
    await world.max.post(f"{release}/publish")


async def test_a_review_by_rules_names_file_and_line_and_changes_nothing(own: World) -> None:
    folder = f"providers{own.fresh()}"
    await released(own, {**BASE, f"{folder}/stripe-eu.yaml": "id: stripe-eu\nurl: x\n"})
    workspace = await own.workspace()
    await own.save(workspace, "entities/pay.json", BASE["entities/pay.json"].replace("3", "3000"))
    await own.ann.ok("DELETE", f"{workspace}/files", json={"path": f"{folder}/stripe-eu.yaml"})
    made = await own.ann.post(f"{own.path}/changesets", {"workspace_id": workspace.rpartition("/")[2], "title": "risky"})
    changeset = f"{own.path}/changesets/{made['id']}"
    events = await own.audit(entity_type="changeset", entity_id=made["id"])

    draft = await own.ann.post(f"{changeset}/analyze", {})
    assert draft["provider"] == "rules"
    assert {(each["severity"], each["file_path"], each.get("line")) for each in draft["findings"]} == {
        ("high", "entities/pay.json", 3),
        ("medium", "entities/pay.json", 4),
    }
    assert draft["suggestions"]
    assert_error(await own.rob.send("POST", f"{changeset}/analyze", json={}), 404, "not_found")
    assert await own.audit(entity_type="changeset", entity_id=made["id"]) == events

    submitted = await own.ann.post(f"{changeset}/submit")
    await own.job(submitted["job"]["id"])
    assert await own.rob.post(f"{changeset}/analyze", {"focus": "retries"}) == draft
    key = {"Idempotency-Key": uuid.uuid4().hex}
    assert await own.rob.post(f"{changeset}/analyze", {}, headers=key) == draft
    assert await own.rob.post(f"{changeset}/analyze", {}, headers=key) == draft
    assert_error(await own.rob.send("POST", f"{changeset}/analyze", json={"focus": "x"}, headers=key), 409, "conflict")


async def test_a_chat_without_a_model_says_how_to_configure_one(world: World) -> None:
    changeset = await world.submitted()
    reply = await world.ann.send("POST", f"{changeset}/chat", json={"message": "What changes?"})
    assert "CONMAN_AI_BASE_URL" in assert_error(reply, 503, "unavailable")["message"]
    assert int(reply.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("analyze", {"focus": "x" * 4_001}),
        ("analyze", {"focus": 1}),
        ("chat", {}),
        ("chat", {"message": ""}),
        ("chat", {"message": "  \n"}),
        ("chat", {"message": "x" * 4_001}),
        ("chat", {"message": "x", "file_paths": "a.json"}),
        ("chat", {"message": "x", "file_paths": ["a.json"] * 101}),
    ],
)
async def test_an_unsound_question_is_refused_before_anything_is_asked(world: World, verb: str, body: dict[str, object]) -> None:
    changeset = await world.changeset()
    assert_error(await world.ann.send("POST", f"{changeset}/{verb}", json=body), 400, "validation_error")

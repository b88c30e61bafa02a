"""Comments over HTTP: threads, anchors, edits, resolution, refusals (`spec.md` 8, `api.md` 3 and 4)."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.api.own_things import NOWHERE
from tests.support.conman_stack import World, assert_error, last

TEXT = "".join(f"line {number}\n" for number in range(1, 11))
FILE = "notes/a.txt"


async def resubmitted(world: World, changeset: str, text: str) -> None:
    """The next revision, with another text in the file."""
    workspace = (await world.ann.get(changeset))["workspace_id"]
    await world.save(f"{world.path}/workspaces/{workspace}", FILE, text)
    await world.ann.post(f"{changeset}/resubmit")


async def of_comment(world: World, comment_id: str) -> list[dict[str, Any]]:
    """What the audit says of a comment, oldest first."""
    return (await world.audit(entity_type="comment", entity_id=comment_id))[::-1]


async def test_a_comment_on_a_line_follows_to_the_next_revision_or_becomes_outdated(world: World) -> None:
    changeset = await world.submitted({FILE: TEXT})
    at_five, at_nine = [
        await world.rob.post(f"{changeset}/comments", {"body": "see", "file_path": FILE, "line_number": line}) for line in (5, 9)
    ]
    assert (at_five["line_number"], at_five["revision_number"], at_five["outdated"]) == (5, 1, False)
    await resubmitted(world, changeset, "new\n" + TEXT.replace("line 9", "other"))
    rows = await world.ann.get(f"{changeset}/comments")
    assert [row["id"] for row in rows] == [at_five["id"], at_nine["id"]]
    assert [(row["file_path"], row["line_number"], row["revision_number"], row["outdated"]) for row in rows] == [
        (FILE, 6, 1, False),
        (FILE, 9, 1, True),
    ]
    assert [row["original"]["line_number"] for row in rows] == [5, 9]
    late = await world.rob.post(f"{changeset}/comments", {"body": "now", "file_path": FILE, "line_number": 11})
    assert (late["revision_number"], late["line_number"]) == (2, 11)


async def test_html_is_kept_as_the_text_that_it_is(world: World) -> None:
    changeset = await world.changeset()
    body = "<script>alert('x')</script> & <b>bold</b>\r\n\t&amp; \u202e\U0001f469 "
    made = await world.rob.post(f"{changeset}/comments", {"body": body})
    assert made["body"] == body
    [row] = await world.ann.get(f"{changeset}/comments")
    assert row == made
    [revision] = await world.ann.get(f"{changeset}/comments/{made['id']}/revisions")
    assert (revision["body"], revision["revision_number"], revision["created_by"]) == (body, 1, world.rob.id)
    assert [event["after"]["body"] for event in await of_comment(world, made["id"])] == [body]


async def test_an_edit_keeps_every_former_body_and_is_audited(world: World) -> None:
    changeset = await world.changeset()
    made = await world.rob.post(f"{changeset}/comments", {"body": "one"})
    path = f"{changeset}/comments/{made['id']}"
    assert not made["edited"]
    for body in ("two", "three"):
        edited = await world.rob.ok("PATCH", path, json={"body": body})
    assert (edited["body"], edited["edited"], edited["version"]) == ("three", True, 3)
    rows, pagination = await world.ann.listed(f"{path}/revisions", limit=2)
    assert [(row["revision_number"], row["body"]) for row in rows] == [(3, "three"), (2, "two")]
    assert pagination == {"page": 1, "limit": 2, "total": 3}
    events = await of_comment(world, made["id"])
    assert [(event["action"], event["before"], event["after"]) for event in events[1:]] == [
        ("edited", {"changeset_id": last(changeset), "body": old}, {"changeset_id": last(changeset), "body": new})
        for old, new in (("one", "two"), ("two", "three"))
    ]


async def test_only_the_author_edits_a_body_and_any_member_resolves(world: World) -> None:
    changeset = await world.changeset()
    made = await world.rob.post(f"{changeset}/comments", {"body": "one"})
    path = f"{changeset}/comments/{made['id']}"
    for person in (world.ann, world.max, world.eve):
        refused = await person.send("PATCH", path, json={"body": "mine now", "resolved": True, "version": 99})
        assert_error(refused, 403, "forbidden")
    for person, resolved in ((world.ann, True), (world.eve, False), (world.max, True)):
        assert (await person.ok("PATCH", path, json={"resolved": resolved}))["resolved"] is resolved
    events = await of_comment(world, made["id"])
    assert [(event["action"], event["actor_user_id"]) for event in events] == [
        ("created", world.rob.id),
        ("resolved", world.ann.id),
        ("resolved", world.eve.id),
        ("resolved", world.max.id),
    ]
    assert [event["after"]["resolved"] for event in events[1:]] == [True, False, True]


async def test_replies_hang_on_the_thread_and_page_oldest_first(world: World) -> None:
    changeset = await world.changeset()
    path = f"{changeset}/comments"
    first = await world.rob.post(path, {"body": "first"})
    reply = await world.ann.post(path, {"body": "reply", "parent_comment_id": first["id"]})
    again = await world.rob.post(path, {"body": "again", "parent_comment_id": reply["id"]})
    assert [row["parent_comment_id"] for row in (first, reply, again)] == [None, first["id"], first["id"]]
    rows, pagination = await world.ann.listed(path, limit=2, page=1)
    more, _ = await world.ann.listed(path, limit=2, page=2)
    assert [row["body"] for row in rows + more] == ["first", "reply", "again"]
    assert pagination == {"page": 1, "limit": 2, "total": 3}
    refused = await world.ann.send("PATCH", f"{path}/{reply['id']}", json={"resolved": True})
    assert first["id"] in assert_error(refused, 400, "validation_error")["message"]


@pytest.mark.parametrize("how", ["body", "If-Match"])
async def test_a_stale_version_is_refused_and_nothing_is_written(world: World, how: str) -> None:
    changeset = await world.changeset()
    made = await world.rob.post(f"{changeset}/comments", {"body": "one"})
    path = f"{changeset}/comments/{made['id']}"
    await world.rob.ok("PATCH", path, json={"body": "two"}, headers={"If-Match": "1"})
    body = {"body": "three", **({"version": 1} if how == "body" else {})}
    headers = {"If-Match": '"1"'} if how == "If-Match" else {}
    error = assert_error(await world.rob.send("PATCH", path, json=body, headers=headers), 409, "stale_write")
    assert error["details"] == {"version": 2}
    [row] = await world.rob.get(f"{changeset}/comments")
    assert (row["body"], row["version"]) == ("two", 2)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"body": ""}, "body"),
        ({"body": " \n"}, "body"),
        ({"body": "x" * 10_001}, "body"),
        ({}, "body"),
        ({"body": "x", "line_number": 1}, "line_number"),
        ({"body": "x", "file_path": FILE, "line_number": 0}, "line_number"),
        ({"body": "x", "file_path": FILE, "line_number": 11}, "line_number"),
        ({"body": "x", "file_path": "no/such.txt"}, "file_path"),
        ({"body": "x", "file_path": "../a.txt"}, "file_path"),
        ({"body": "x", "file_path": "notes"}, "file_path"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_is_no_comment_is_refused_by_its_field(world: World, submitted: str, body: dict[str, Any], field: str) -> None:
    error = assert_error(await world.rob.send("POST", f"{submitted}/comments", json=body), 400, "validation_error")
    assert [item["field"] for item in error["details"]] == [field]


@pytest.mark.parametrize("body", [{"body": None}, {"resolved": None}, {"body": ""}, {"body": "x" * 10_001}, {"file_path": FILE}])
async def test_what_is_no_change_is_refused(world: World, submitted: str, body: dict[str, Any]) -> None:
    made = await world.rob.post(f"{submitted}/comments", {"body": "x" * 10_000})
    refused = await world.rob.send("PATCH", f"{submitted}/comments/{made['id']}", json=body)
    assert_error(refused, 400, "validation_error")


@pytest.fixture(scope="module")
async def submitted(world: World) -> str:
    return await world.submitted({FILE: TEXT})


async def test_a_comment_of_another_changeset_is_not_found_under_this_one(world: World, other_app: World) -> None:
    one, other = await world.changeset(), await world.changeset()
    theirs = await world.rob.post(f"{other}/comments", {"body": "one"})
    foreign = await other_app.ann.post(f"{await other_app.changeset()}/comments", {"body": "one"})
    for comment_id in (theirs["id"], foreign["id"], NOWHERE):
        path = f"{one}/comments/{comment_id}"
        for body in ({"body": "x"}, {"no": "field of any body"}):  # before the body is read
            assert_error(await world.rob.send("PATCH", path, json=body), 404, "not_found")
        assert_error(await world.rob.send("GET", f"{path}/revisions"), 404, "not_found")
        reply = {"body": "x", "parent_comment_id": comment_id}
        assert_error(await world.rob.send("POST", f"{one}/comments", json=reply), 404, "not_found")
    assert await world.rob.get(f"{one}/comments") == []


async def test_comments_go_on_when_the_changeset_has_ended_until_the_app_is_archived(own: World) -> None:
    changeset = await own.submitted({FILE: TEXT})
    made = await own.rob.post(f"{changeset}/comments", {"body": "one", "file_path": FILE, "line_number": 1})
    await own.ann.ok("DELETE", changeset)
    path = f"{changeset}/comments"
    await own.rob.post(path, {"body": "two", "file_path": FILE, "line_number": 2})
    await own.ann.ok("PATCH", f"{path}/{made['id']}", json={"resolved": True})
    await own.stack.admin.ok("DELETE", own.path)
    assert_error(await own.rob.send("POST", path, json={"body": "three"}), 409, "conflict")
    assert_error(await own.rob.send("PATCH", f"{path}/{made['id']}", json={"body": "x"}), 409, "conflict")
    rows = await own.rob.get(path)
    assert [(row["body"], row["resolved"]) for row in rows] == [("one", True), ("two", False)]


async def test_a_repeat_with_the_same_key_answers_as_the_first_after_later_edits_and_revisions(world: World) -> None:
    changeset = await world.submitted({FILE: TEXT})
    path = f"{changeset}/comments"
    keys = [{"Idempotency-Key": uuid.uuid4().hex} for _ in range(2)]
    new = {"body": "one", "file_path": FILE, "line_number": 5}
    made = await world.rob.post(path, new, headers=keys[0])
    edited = await world.rob.ok("PATCH", f"{path}/{made['id']}", json={"body": "two"}, headers=keys[1])
    await world.rob.ok("PATCH", f"{path}/{made['id']}", json={"body": "three", "resolved": True})
    await resubmitted(world, changeset, "new\n" + TEXT)
    assert await world.rob.post(path, new, headers=keys[0]) == made
    assert await world.rob.ok("PATCH", f"{path}/{made['id']}", json={"body": "two"}, headers=keys[1]) == edited
    [row] = await world.rob.get(path)
    assert (row["body"], row["resolved"], row["line_number"]) == ("three", True, 6)

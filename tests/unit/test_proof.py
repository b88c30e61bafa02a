"""A proof of a release: what is in it holds together, and whatever is changed in it is found (docs/adr/0036)."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conman.domain.proof import FORMAT, VERSION, check, git_id, written
from conman.domain.sealing import ANCHOR_FILE, anchor_bytes, digest_of, seals

APP, RELEASE, CHANGESET = "app", "release", "changeset"
AT = "2026-01-31T09:30:00.000Z"
BASE = "b" * 40
WHO = "Max <max@example.com> 1769851800 +0000"


def event(number: int, entity: str, action: str, after: dict[str, Any], **more: Any) -> dict[str, Any]:
    common = {"id": f"e{number}", "app_id": APP, "occurred_at": AT, "actor_user_id": "max", "git_sha": None}
    kind = "release" if entity == RELEASE else "changeset"
    return {**common, "entity_type": kind, "entity_id": entity, "action": action, "after": after, **more}


def commit(tree: str, parents: list[str], message: str) -> dict[str, Any]:
    lines = [f"tree {tree}", *(f"parent {one}" for one in parents), f"author {WHO}", f"committer {WHO}"]
    raw = "\n".join(lines) + f"\n\n{message}\n"
    return {"sha": git_id("commit", raw.encode()), "parents": parents, "raw": raw}


SUBMITTED = commit("d" * 40, [BASE], "Change a price")
HEAD = SUBMITTED["sha"]


def proof() -> dict[str, Any]:
    """A small release, whole."""
    merge = commit("c" * 40, [BASE, HEAD], "Merge a changeset, with a sign: \u00e9")
    published = merge["sha"]
    slice_ = [
        event(1, CHANGESET, "submitted", {"revision_number": 1, "head_sha": HEAD}, actor_user_id="ann"),
        event(2, CHANGESET, "approved", {"revision_number": 1, "head_sha": HEAD, "gate_job_id": "g1"}, actor_user_id="rob"),
        event(4, RELEASE, "validated", {"base_sha": BASE, "job_ids": ["g2"]}, git_sha=published),
        event(5, RELEASE, "published", {"tag": "r1", "ordered_changeset_ids": [CHANGESET]}, git_sha=published),
    ]
    others = {"e3": "3" * 64, "e6": "6" * 64}
    digests = sorted([*((one["id"], digest_of(one)) for one in slice_), *others.items()])
    chain = seals(APP, 10, "f" * 64, digests)
    file = anchor_bytes(chain=APP, seq=16, last_hash=chain[-1].hash, at=AT, platform=None)
    tree = git_id("tree", f"100644 {ANCHOR_FILE}\0".encode() + bytes.fromhex(git_id("blob", file)))
    anchor = commit(tree, [], "Seal the audit up to event 16")
    places = {seal.event_id: seal.seq for seal in chain}
    return {
        "format": FORMAT,
        "version": VERSION,
        "release": {
            "id": RELEASE,
            "app_id": APP,
            "tag": "r1",
            "base_sha": BASE,
            "candidate_sha": published,
            "published_sha": published,
            "published_at": AT,
            "published_by": "max",
            "tag_sha": published,
        },
        "members": [
            {
                "changeset_id": CHANGESET,
                "revision_number": 1,
                "head_sha": HEAD,
                "head_commit": SUBMITTED["raw"],
                "votes": [{"reviewer_user_id": "rob", "action": "approve", "revision_number": 1, "at": AT, "void": False}],
            }
        ],
        "commits": [merge],
        "gates": [
            {"job_id": "g1", "commit_sha": HEAD, "tree_id": "d" * 40, "state": "succeeded"},
            {"job_id": "g2", "commit_sha": published, "tree_id": "c" * 40, "state": "succeeded"},
            {"job_id": "g3", "commit_sha": None, "tree_id": None, "state": "failed"},
        ],
        "audit": {
            "chain": APP,
            "first": 11,
            "previous_hash": "f" * 64,
            "contents": [seal.content for seal in chain],
            "events": [{"seq": places[one["id"]], "content": one} for one in slice_],
            "anchor": {"sha": anchor["sha"], "commit": anchor["raw"], "file": file.decode()},
        },
    }


WHOLE = written(proof())


def test_a_proof_that_nobody_touched_holds_and_says_what_it_does_not_prove() -> None:
    found = check(WHOLE)
    assert (found.ok, found.problems) == (True, [])
    assert any("4 audit events" in one for one in found.proved)
    assert any("1 of its 1 changesets" in one for one in found.proved)
    assert any("2 gates have passed" in one and "2 on the trees" in one for one in found.proved)
    assert any("1 other gates" in one for one in found.trusted)
    assert any("deployments" in one for one in found.trusted)
    assert any("refs/conman/audit" in one for one in found.trusted)


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_changed_byte_anywhere_is_found(place: int, change: int) -> None:
    data = bytearray(WHOLE)
    data[place] ^= change
    assert not check(bytes(data)).ok


@given(st.integers(0, len(WHOLE) - 1))
def test_a_file_that_was_cut_or_grew_is_found(length: int) -> None:
    assert not check(WHOLE[:length]).ok
    assert not check(WHOLE + b" ").ok


FORGERIES: dict[str, Callable[[dict[str, Any]], None]] = {
    "another tag": lambda proof: proof["release"].update(tag="r2"),
    "another published commit": lambda proof: proof["release"].update(published_sha=HEAD),
    "another candidate": lambda proof: proof["release"].update(candidate_sha=HEAD),
    "another base": lambda proof: proof["release"].update(base_sha=HEAD),
    "a tag elsewhere": lambda proof: proof["release"].update(tag_sha=HEAD),
    "somebody else published": lambda proof: proof["release"].update(published_by="eve"),
    "another time": lambda proof: proof["release"].update(published_at="2026-02-01T00:00:00.000Z"),
    "another app": lambda proof: proof["release"].update(app_id="other"),
    "a changeset more": lambda proof: proof["members"].append({**proof["members"][0], "changeset_id": "more"}),
    "no changeset": lambda proof: proof["members"].clear(),
    "another head": lambda proof: proof["members"][0].update(head_sha=BASE),
    "another revision": lambda proof: proof["members"][0].update(revision_number=2),
    "a vote of somebody else": lambda proof: proof["members"][0]["votes"][0].update(reviewer_user_id="eve"),
    "a vote on another revision": lambda proof: proof["members"][0]["votes"][0].update(revision_number=2),
    "another vote": lambda proof: proof["members"][0]["votes"][0].update(action="reject"),
    "another tree of a changeset": lambda proof: proof["gates"][0].update(tree_id="e" * 40),
    "another tree of the release": lambda proof: proof["gates"][1].update(tree_id="e" * 40),
    "a gate that failed": lambda proof: proof["gates"][1].update(state="failed"),
    "a gate on another commit": lambda proof: proof["gates"][0].update(commit_sha=BASE),
    "a gate left out": lambda proof: proof["gates"].pop(0),
    "another head's text": lambda proof: proof["members"][0].update(head_commit=proof["commits"][0]["raw"]),
    "a changed commit": lambda proof: proof["commits"][0].update(raw=proof["commits"][0]["raw"].replace("Max", "Eve")),
    "other parents": lambda proof: proof["commits"][0].update(parents=[BASE]),
    "no commits": lambda proof: proof["commits"].clear(),
    "a changed event": lambda proof: proof["audit"]["events"][1]["content"].update(actor_user_id="eve"),
    "an event at another place": lambda proof: proof["audit"]["events"][1].update(seq=13),
    "an event beyond the chain": lambda proof: proof["audit"]["events"][1].update(seq=99),
    "an event left out": lambda proof: proof["audit"]["events"].pop(1),
    "a changed link": lambda proof: proof["audit"]["contents"].__setitem__(2, "0" * 64),
    "a shorter chain": lambda proof: proof["audit"]["contents"].pop(),
    "another beginning": lambda proof: proof["audit"].update(previous_hash="0" * 64),
    "a changed anchor": lambda proof: proof["audit"]["anchor"].update(file=proof["audit"]["anchor"]["file"].replace("16", "15")),
    "another anchor's id": lambda proof: proof["audit"]["anchor"].update(sha=HEAD),
    "a changed anchor's commit": lambda proof: proof["audit"]["anchor"].update(commit=proof["audit"]["anchor"]["commit"] + "x"),
    "nothing at all": lambda proof: proof.pop("audit"),
}


@pytest.mark.parametrize("name", list(FORGERIES))
def test_a_forgery_whose_digest_was_made_anew_is_found(name: str) -> None:
    forged = deepcopy(proof())
    FORGERIES[name](forged)
    assert not check(written(forged)).ok


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"\xff", b'{"format": 1}', b"[" * 100_000])
def test_what_is_no_proof_is_told_and_breaks_nothing(data: bytes) -> None:
    assert not check(data).ok


def test_a_commit_that_can_not_be_shown_is_trusted_and_told() -> None:
    signed = proof()
    signed["commits"][0]["raw"] = None
    found = check(written(signed))
    assert found.ok
    assert any("signature" in one for one in found.trusted)
    assert any("trees of 1 gates" in one for one in found.trusted)
    assert not any("merges the heads" in one for one in found.proved)  # its parents are only said
    assert json.loads(written(signed))["commits"][0]["raw"] is None

"""`assemble?dry_run=true` over a real repository and a real database: what would happen, and nothing does (`spec.md` 11)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from conman.domain.errors import DomainError, Unavailable
from conman.domain.messages import GateStart
from conman.domain.overrides import FrozenOverride
from conman.domain.queue_records import Entry, Queue
from conman.domain.release import Member, Release, ReleaseState
from conman.git.adapter import Signature, WriteFile
from conman.services import dry_runs
from conman.services.call import Call
from conman.services.clock import new_id, now
from conman.services.platform import Platform
from conman.store.database import Document
from tests.services.shop import OUTSIDER, REPO, Shop

DRAFT, VALIDATED = ReleaseState.DRAFT_RELEASE, ReleaseState.VALIDATED
MAIN = "refs/heads/main"


@dataclass
class Plan:
    """Changesets on the integration head, and releases of them."""

    shop: Shop
    platform: Platform
    head: str
    live: str
    asked: list[tuple[GateStart, str]] = field(default_factory=list)
    kept: bool = False
    names: dict[str, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)

    async def member(self, name: str, files: dict[str, str], parent: str | None = None, **more: Any) -> Member:
        """A queued changeset."""
        base = parent or self.head
        sha = await self.platform.git.commit_files(
            REPO,
            ref=f"refs/conman/made/{new_id()}",
            expected_old=None,
            parent=base,
            changes=[WriteFile(path, text.encode()) for path, text in files.items()],
            author=Signature(OUTSIDER.name, OUTSIDER.email, OUTSIDER.when),
            message=f"{name}\n",
        )
        made = Member(changeset_id=new_id(), head_sha=sha, base_sha=base, revision_number=1, title=name, **more)
        self.names[made.changeset_id] = name
        self.entries.append(Entry(**made.model_dump(), queued_at=now(), judged_sha=self.head))
        return made

    async def release(self, *members: Member, state: ReleaseState = DRAFT) -> Document:
        """A release that holds the members; the queue knows it."""
        owned = Release(app_id=self.shop.app["_id"], tag="r1", created=True, state=state, members=list(members))
        document: Document = {"_id": new_id(), "app_id": self.shop.app["_id"], "owned": owned.model_dump(mode="json")}
        await self.platform.db["releases"].insert_one(document)
        held = {member.changeset_id for member in members}
        entries = [
            one.model_copy(update={"reserved_by": document["_id"]}) if one.changeset_id in held else one for one in self.entries
        ]
        queue = Queue(app_id=self.shop.app["_id"], integration_sha=self.head, entries=entries)
        await self.platform.db["queues"].replace_one(
            {"_id": self.shop.app["_id"]}, {"owned": queue.model_dump(mode="json")}, upsert=True
        )
        return document

    async def run(self, release: Document, call: Call | None = None) -> Document:
        async def is_kept(gate: GateStart, tree_id: str) -> bool:
            self.asked.append((gate, tree_id))
            return self.kept

        return await dry_runs.dry_run(self.platform, call or self.shop.call(), self.shop.app, release, is_kept)

    async def everything(self) -> Document:
        """All records and refs."""
        names = sorted(await self.platform.db.list_collection_names())
        rows = {name: await self.platform.db[name].find({}).sort("_id", 1).to_list() for name in names}
        return {
            **{name: found for name, found in rows.items() if found},
            "refs": await self.platform.git.list_refs(REPO, "refs/"),
        }

    def named(self, ids: list[str]) -> str:
        return " ".join(self.names[one] for one in ids)


@pytest.fixture
async def plan(shop: Shop) -> AsyncIterator[Plan]:
    async with shop.platform() as platform:
        live = new_id()
        environment = {"id": new_id(), "name": "Live", "runtime_profile_id": live}
        shop.app["environments"] = [environment]
        shop.app["settings"]["canonical_env_id"] = environment["id"]
        await platform.db["apps"].insert_one(shop.app)
        await platform.db["profiles"].insert_one({"_id": live, "app_id": shop.app["_id"], "revision_id": "live-3"})
        head = await platform.git.resolve(REPO, MAIN)
        assert head is not None
        yield Plan(shop, platform, head, live)


async def test_a_selection_that_merges_would_be_validated_by_the_suites_that_are_named(plan: Plan) -> None:
    override = FrozenOverride(profile_id=plan.live, content_id="c1", target_profile_id=plan.live, keys={"base_url": "d"})
    one = await plan.member("one", {"a.json": "1\n"}, overrides=[override])
    two = await plan.member("two", {"b.json": "2\n"})
    plan.kept = True
    release = await plan.release(one, two)
    before = await plan.everything()
    found = await plan.run(release)
    assert await plan.everything() == before, "no record, job, audit event or ref is made"
    assert found["would"] == "validate"
    assert found["base_sha"] == plan.head
    assert found["merges"] == [{"changeset_id": id_, "clean": True, "paths": []} for id_ in (one.changeset_id, two.changeset_id)]
    assert found["gates"] == [{"environment": "Live", "profile_id": plan.live, "profile_revision_id": "live-3", "reused": True}]
    ((gate, tree),) = plan.asked
    assert tree == found["candidate_tree"]
    assert [frozen["content_id"] for frozen in gate.overrides] == ["c1"]
    merged = await plan.platform.git.trial_merge(REPO, one.head_sha, two.head_sha)
    assert merged.tree_id == tree
    assert (found["excludes"], found["largest_subset"], found["untested"]) == ([], [one.changeset_id, two.changeset_id], True)


async def test_members_that_do_not_merge_are_named_with_the_pairs_that_exclude_each_other(plan: Plan) -> None:
    first = await plan.member("first", {"shared.json": "1\n"})
    second = await plan.member("second", {"shared.json": "2\n"})
    apart = await plan.member("apart", {"apart.json": "3\n"})
    third = await plan.member("third", {"shared.json": "3\n", "apart.json": "4\n"})
    await plan.shop.commit_to_main(plan.platform, "moved.json", "main\n")
    old = await plan.member("old", {"moved.json": "mine\n"})
    release = await plan.release(first, second, apart, third, old)
    before = await plan.everything()
    found = await plan.run(release)
    assert await plan.everything() == before
    assert (found["would"], found["candidate_tree"], found["gates"]) == ("conflict", None, [])
    told = [(plan.named([row["changeset_id"]]), row["clean"], row["paths"]) for row in found["merges"]]
    assert told == [
        ("first", True, []),
        ("second", False, ["shared.json"]),
        ("apart", True, []),
        ("third", False, ["apart.json", "shared.json"]),
        ("old", False, ["moved.json"]),
    ]
    pairs = [plan.named(pair) for pair in found["excludes"]]
    assert pairs == ["first second", "first third", "second third", "apart third"]
    assert plan.named(found["alone"]) == "old"
    assert plan.named(found["largest_subset"]) == "first apart"
    assert (found["exact"], found["untested"]) == (True, True)


async def test_a_validated_release_can_be_tried_again_and_nothing_else_but_a_draft(plan: Plan) -> None:
    member = await plan.member("one", {"a.json": "1\n"})
    assert (await plan.run(await plan.release(member, state=VALIDATED)))["would"] == "validate"
    for state in set(ReleaseState) - {DRAFT, VALIDATED}:
        release = await plan.release(member, state=state)
        with pytest.raises(DomainError) as refused:
            await plan.run(release)
        assert refused.value.code.value == "invalid_transition"


async def test_an_empty_selection_and_one_that_is_too_large_are_refused(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DomainError, match="no changesets"):
        await plan.run(await plan.release())
    monkeypatch.setattr(dry_runs, "MOST_MEMBERS", 1)
    one, two = await plan.member("one", {"a.json": "1\n"}), await plan.member("two", {"b.json": "1\n"})
    assert (await plan.run(await plan.release(one)))["would"] == "validate"
    with pytest.raises(DomainError, match="1 changesets at most"):
        await plan.run(await plan.release(one, two))


async def test_merges_that_take_too_long_for_a_request_are_given_up(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_runs, "PATIENCE_SECONDS", 0)
    release = await plan.release(await plan.member("one", {"a.json": "1\n"}))
    with pytest.raises(Unavailable) as unavailable:
        await plan.run(release)
    assert unavailable.value.code.value == "unavailable"


async def test_an_assembly_that_the_queue_would_refuse_says_whom_for(plan: Plan) -> None:
    staying, gone = await plan.member("staying", {"a.json": "1\n"}), await plan.member("gone", {"b.json": "1\n"})
    del plan.entries[1]
    found = await plan.run(await plan.release(staying, gone))
    assert found["would"] == "refuse"
    assert found["refusal"]["code"] == "conflict"
    assert [row["changeset_id"] for row in found["refusal"]["details"]] == [gone.changeset_id]


async def test_a_repeat_with_the_same_key_is_told_what_the_first_was(plan: Plan) -> None:
    release = await plan.release(await plan.member("one", {"a.json": "1\n"}))
    call = replace(plan.shop.call("again"), keyed=True)
    await plan.platform.db["idempotency"].insert_one({"_id": call.remembered_as, "at": call.at})
    first = await plan.run(release, call)
    await plan.shop.commit_to_main(plan.platform, "a.json", "theirs\n")
    assert await plan.run(release, call) == first
    assert (await plan.run(release))["would"] == "conflict"

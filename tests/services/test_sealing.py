"""Events are sealed into chains, whatever dies, and what is done to a chain afterwards is found (`spec.md` 14)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conman.domain.decision import Actor, Event
from conman.domain.outgoing import audit_entry
from conman.domain.seal_check import ProblemKind
from conman.domain.sealing import AUDIT_REF, PLATFORM, content_of, digest_of, seals
from conman.domain.times import later
from conman.git.adapter import RefUpdate
from conman.git.local import LocalGit
from conman.services.audit_anchor import anchor_all, anchors_down_from, newest
from conman.services.audit_verify import Verification, verify_app, verify_platform
from conman.services.clock import new_id, now
from conman.services.sealing import CHAINS, SEALS, UNSEALED, seal_all
from conman.store import audit
from conman.store.database import Database, Document, ensure_indexes
from conman.store.outgoing import sweep
from tests.support.crashes import crash_at

REPO = "team/app.git"
CHANGED, REMOVED, REORDERED = ProblemKind.CHANGED, ProblemKind.REMOVED, ProblemKind.REORDERED


@dataclass
class Archive:
    """An app's audit, and its repository."""

    db: Database
    git: LocalGit
    app: Document
    at: str = field(default_factory=now)
    folder: Path = Path()

    async def happen(self, count: int, *, app_id: str | None = "") -> list[str]:
        """So many events, told of as deliveries do; their ids in order."""
        app = self.app["_id"] if app_id == "" else app_id
        made: list[Document] = []
        for _ in range(count):
            self.at = later(self.at, timedelta(milliseconds=7))
            event = Event("user", new_id(), "logged_out") if app is None else Event("app", app, "released_from_hold", before=HOLD)
            made.append(audit_entry(new_id(self.at), event, app_id=app, actor=Actor(user_id=new_id()), at=self.at)["doc"])
        await audit.append(self.db, made)
        return [event["_id"] for event in made]

    async def seal(self) -> int:
        return await seal_all(self.db, self.at)

    async def anchor(self) -> int:
        """As a later round does, when the minute is over."""
        self.at = later(self.at, timedelta(minutes=2))
        return await anchor_all(self.db, self.git, self.at)

    async def verify(self) -> Verification:
        return await verify_app(self.db, self.git, self.app)

    async def problems(self) -> list[tuple[str | None, int, ProblemKind]]:
        return [(one.event_id, one.seq, one.kind) for one in (await self.verify()).problems]

    async def chain(self, chain: str | None = None) -> list[Document]:
        return await self.db[SEALS].find({"chain": chain or self.app["_id"]}).sort("seq", 1).to_list()

    async def order(self, chain: str | None = None) -> list[str]:
        """The ids of what is sealed; fails unless the places are 1, 2, 3 … and nothing waits."""
        rows = await self.chain(chain)
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
        assert await self.db[UNSEALED].count_documents({}) == 0
        return [row["_id"] for row in rows]

    async def rewrite(self, first: int, chain: str | None = None) -> None:
        """What somebody does who knows how seals are made: give all from that place on hashes anew, the head too."""
        rows = await self.chain(chain)
        contents: list[tuple[str, str]] = []
        for row in rows[first - 1 :]:
            event = await self.db["audit"].find_one({"_id": row["_id"]})
            assert event is not None
            contents.append((row["_id"], digest_of(content_of(event))))
        before = rows[first - 1]["previous_hash"]
        for seal in seals(chain or self.app["_id"], first - 1, before, contents):
            await self.db[SEALS].replace_one({"_id": seal.event_id}, seal.document())
            await self.db[CHAINS].update_one({"_id": seal.chain}, {"$set": {"hash": seal.hash}})


HOLD = {"reason": "inventory", "until": None}


@pytest.fixture
async def archive(db: Database, tmp_path: Path) -> AsyncIterator[Archive]:
    app: Document = {"_id": new_id(), "name": "shop", "repo_path": REPO}
    await db["apps"].insert_one(app)
    git = LocalGit(tmp_path, 2)
    await git.create_repository(REPO, "main")
    yield Archive(db, git, app)
    git.close()


async def set_event(archive: Archive, event_id: str, fields: dict[str, Any]) -> None:
    assert (await archive.db["audit"].update_one({"_id": event_id}, {"$set": fields})).modified_count == 1


async def test_events_get_places_by_app_in_order_and_what_comes_late_the_next_one(archive: Archive) -> None:
    ids = await archive.happen(5)
    late = ids.pop(1)
    await archive.db["audit_unsealed"].delete_one({"_id": late})
    there = await archive.db["audit"].find_one_and_delete({"_id": late})
    outside = await archive.happen(3, app_id=None)
    assert await archive.seal() == 7
    assert there is not None
    await audit.append(archive.db, [there])
    await audit.append(archive.db, [there])
    assert await archive.seal() == 1
    assert await archive.order() == [*ids, late]
    assert await archive.order(PLATFORM) == outside
    assert await archive.seal() == 0
    found = await archive.verify()
    assert (found.ok, found.checked, found.sealed_to) == (True, 5, 5)


@pytest.mark.parametrize("point", ["seal.intended", "seal.kept", "seal.advanced"])
async def test_a_sealer_that_died_anywhere_leaves_no_gap_and_no_place_twice(archive: Archive, point: str) -> None:
    ids = await archive.happen(4)
    with crash_at(point):
        await archive.seal()
    ids += await archive.happen(3)
    await asyncio.gather(*(archive.seal() for _ in range(3)))
    assert await archive.order() == ids
    assert (await archive.verify()).ok


async def test_a_batch_of_which_only_some_seals_are_kept_is_finished(archive: Archive) -> None:
    ids = await archive.happen(4)
    with crash_at("seal.kept"):
        await archive.seal()
    await archive.db[SEALS].delete_many({"seq": {"$in": [1, 3]}})
    await archive.seal()
    assert await archive.order() == ids


async def test_several_sealers_beside_writers_make_one_chain(archive: Archive) -> None:
    async def writes() -> list[str]:
        return [one for _ in range(6) for one in await archive.happen(3)]

    async def seals_on() -> None:
        while not written.done():
            await archive.seal()

    written = asyncio.ensure_future(writes())
    await asyncio.gather(written, *(seals_on() for _ in range(4)))
    await archive.seal()
    assert sorted(await archive.order()) == sorted(written.result())
    assert (await archive.verify()).ok


async def test_what_waits_for_its_seal_is_no_problem_and_may_be_verified_beside_sealing(archive: Archive) -> None:
    await archive.happen(3)
    await archive.seal()
    await archive.happen(2)
    found = await archive.verify()
    assert (found.ok, found.checked, found.sealed_to) == (True, 3, 3)
    with crash_at("seal.kept"):
        await archive.seal()
    found = await archive.verify()
    assert (found.ok, found.sealed_to) == (True, 3)


async def test_an_event_that_was_put_there_or_kept_from_its_seal_is_found(archive: Archive) -> None:
    await archive.happen(2)
    await archive.seal()
    forged, hidden, waiting = await archive.happen(3)
    await archive.db[UNSEALED].delete_many({"_id": {"$in": [forged, hidden]}})
    for seq in (0, 1.5):  # places that no chain has
        await archive.db[SEALS].replace_one({"_id": hidden}, {"chain": archive.app["_id"], "seq": seq}, upsert=True)
        assert await archive.problems() == [(forged, 0, CHANGED), (hidden, 0, CHANGED)]
    await archive.db[SEALS].delete_one({"_id": hidden})
    assert await archive.seal() == 1
    assert await archive.problems() == [(forged, 0, CHANGED), (hidden, 0, CHANGED)]
    assert waiting in [row["_id"] for row in await archive.chain()]


async def test_a_delivery_that_died_between_list_and_event_is_no_problem_and_ends_in_a_seal(archive: Archive) -> None:
    with crash_at("audit.listed"):
        await archive.happen(1)
    assert (await archive.seal(), await archive.problems()) == (0, [])
    row = await archive.db[UNSEALED].find_one({})
    assert row is not None
    event = Event("app", archive.app["_id"], "released_from_hold", before=HOLD)
    again = audit_entry(row["_id"], event, app_id=archive.app["_id"], actor=Actor(), at=archive.at)["doc"]
    await audit.append(archive.db, [again])
    assert (await archive.seal(), await archive.problems()) == (1, [])


async def test_an_event_that_was_removed_before_its_seal_is_told_when_no_delivery_will_bring_it(archive: Archive) -> None:
    archive.at = later(now(), -timedelta(hours=2))
    [gone, there] = await archive.happen(2)
    await archive.db["audit"].delete_one({"_id": gone})
    assert await archive.seal() == 1
    assert await archive.problems() == [(gone, 0, REMOVED)]
    assert [row["_id"] for row in await archive.chain()] == [there]


async def test_an_event_that_was_listed_for_another_app_has_its_seal_in_its_own_chain(archive: Archive) -> None:
    ids = await archive.happen(2)
    await archive.db[UNSEALED].update_one({"_id": ids[0]}, {"$set": {"app_id": new_id()}})
    await archive.seal()
    assert await archive.order() == ids
    assert (await archive.verify()).ok


async def test_what_is_no_event_stops_no_seal_of_others(archive: Archive) -> None:
    row = {"_id": new_id(), "app_id": archive.app["_id"], "occurred_at": datetime.now(UTC)}
    await audit.append(archive.db, [row])
    await archive.happen(2)
    await archive.db[CHAINS].insert_one({"_id": PLATFORM, "seq": "x"})
    await archive.happen(1, app_id=None)
    assert await archive.seal() == 2
    assert (await archive.verify()).ok


@pytest.mark.parametrize("head", [{"seq": "x"}, {"pending": {"chain": 1}}, {"anchored": {"seq": None}}, {"hash": None}])
async def test_a_head_that_is_none_is_told_and_so_is_a_seal_whose_place_is_none(archive: Archive, head: Document) -> None:
    await archive.happen(2)
    await archive.seal()
    await archive.db[CHAINS].update_one({"_id": archive.app["_id"]}, {"$set": head})
    assert [(seq, kind) for _, seq, kind in await archive.problems()] == [(2, CHANGED)]
    await archive.db[SEALS].insert_one({"_id": "forged", "chain": archive.app["_id"], "seq": "last"})
    assert [(seq, kind) for _, seq, kind in await archive.problems()] == [(2, CHANGED)]


async def test_a_removed_event_is_found_wherever_it_stood(archive: Archive) -> None:
    ids = await archive.happen(6)
    await archive.seal()
    await archive.db["audit"].delete_many({"_id": {"$in": [ids[0], ids[3], ids[5]]}})
    assert await archive.problems() == [(ids[0], 1, REMOVED), (ids[3], 4, REMOVED), (ids[5], 6, REMOVED)]


async def test_a_changed_event_is_found_wherever_it_stands(archive: Archive) -> None:
    ids = await archive.happen(5)
    await archive.seal()
    await set_event(archive, ids[0], {"actor_user_id": new_id()})
    await set_event(archive, ids[2], {"after": {"cause": "expired"}})
    await set_event(archive, ids[4], {"more": 1})
    assert await archive.problems() == [(ids[0], 1, CHANGED), (ids[2], 3, CHANGED), (ids[4], 5, CHANGED)]


async def test_events_that_changed_places_are_found(archive: Archive) -> None:
    ids = await archive.happen(6)
    await archive.seal()
    one, two = [await archive.db["audit"].find_one({"_id": ids[place]}, {"_id": 0}) for place in (1, 4)]
    await archive.db["audit"].replace_one({"_id": ids[1]}, two or {})
    await archive.db["audit"].replace_one({"_id": ids[4]}, one or {})
    assert await archive.problems() == [(ids[1], 2, REORDERED), (ids[4], 5, REORDERED)]


async def test_places_that_were_swapped_are_found(archive: Archive) -> None:
    ids = await archive.happen(4)
    await archive.seal()
    for event_id, seq in ((ids[1], 99), (ids[2], 2), (ids[1], 3)):
        await archive.db[SEALS].update_one({"_id": event_id}, {"$set": {"seq": seq}})
    assert await archive.problems() == [(ids[2], 2, REORDERED), (ids[1], 3, REORDERED)]


@pytest.mark.parametrize("place", [1, 3, 5])
async def test_an_event_that_was_changed_with_its_seal_is_found(archive: Archive, place: int) -> None:
    ids = await archive.happen(5)
    await archive.seal()
    await set_event(archive, ids[place - 1], {"git_sha": "0" * 40})
    event = await archive.db["audit"].find_one({"_id": ids[place - 1]})
    row = (await archive.chain())[place - 1]
    [seal] = seals(archive.app["_id"], place - 1, row["previous_hash"], [(row["_id"], digest_of(content_of(event or {})))])
    await archive.db[SEALS].replace_one({"_id": row["_id"]}, seal.document())
    assert await archive.problems() == [(ids[place - 1], place, CHANGED)]


async def test_a_tail_that_was_cut_off_is_found(archive: Archive) -> None:
    ids = await archive.happen(5)
    await archive.seal()
    for collection in ("audit", SEALS):
        await archive.db[collection].delete_many({"_id": {"$in": ids[3:]}})
    assert await archive.problems() == [(None, 4, REMOVED), (None, 5, REMOVED)]


async def test_a_tail_that_was_cut_off_with_the_head_set_back_is_found_by_the_anchor(archive: Archive) -> None:
    ids = await archive.happen(5)
    await archive.seal()
    assert await archive.anchor() == 1
    rows = await archive.chain()
    for collection in ("audit", SEALS):
        await archive.db[collection].delete_many({"_id": {"$in": ids[3:]}})
    await archive.db[CHAINS].update_one({"_id": archive.app["_id"]}, {"$set": {"seq": 3, "hash": rows[2]["hash"]}})
    assert await archive.problems() == [(None, 4, REMOVED), (None, 5, REMOVED)]
    await archive.happen(4)
    await archive.seal()
    assert await archive.anchor() == 0  # no newer anchor hides what the last one says
    assert [(seq, kind) for _, seq, kind in await archive.problems()] == [(5, CHANGED)]


async def test_a_head_that_was_removed_is_found_for_ever(archive: Archive) -> None:
    ids = await archive.happen(3)
    await archive.seal()
    await archive.db[CHAINS].delete_one({"_id": archive.app["_id"]})
    assert await archive.problems() == [(ids[2], 3, REMOVED)]
    ids += await archive.happen(2)
    await archive.seal()
    assert await archive.order() == ids
    assert await archive.problems() == [(None, 3, REMOVED)]


async def test_a_chain_that_was_written_anew_as_a_whole_is_found_by_the_anchor_and_from_where_on(archive: Archive) -> None:
    ids: list[str] = []
    for _ in range(4):
        ids += await archive.happen(2)
        await archive.seal()
        assert await archive.anchor() == 1
    await set_event(archive, ids[2], {"actor_user_id": None})
    assert await archive.problems() == [(ids[2], 3, CHANGED)]
    await archive.rewrite(3)
    assert await archive.problems() == [(ids[3], 4, CHANGED), (ids[7], 8, CHANGED)]


async def test_an_audit_that_was_removed_as_a_whole_is_found_by_the_anchor(archive: Archive) -> None:
    await archive.happen(2)
    await archive.seal()
    await archive.anchor()
    for collection in ("audit", SEALS, CHAINS):
        await archive.db[collection].delete_many({})
    found = await archive.verify()
    assert (found.ok, found.sealed_to, found.checked) == (False, 2, 0)
    assert {problem.kind for problem in found.problems} == {REMOVED}


async def test_an_anchor_that_was_set_back_is_found(archive: Archive) -> None:
    ids: list[str] = []
    for _ in range(2):
        ids += await archive.happen(2)
        await archive.seal()
        await archive.anchor()
    last = await newest(archive.git, REPO)
    assert last is not None
    before = (await archive.git.commit(REPO, last.commit)).parents[0]
    await archive.git.update_refs(REPO, [RefUpdate(AUDIT_REF, last.commit, before)])
    assert await archive.problems() == [(ids[3], 4, CHANGED)]
    await archive.git.update_refs(REPO, [RefUpdate(AUDIT_REF, before, None)])
    assert await archive.problems() == [(ids[3], 4, CHANGED)]


async def test_the_anchor_follows_the_chain_and_carries_the_platforms_along(archive: Archive) -> None:
    await archive.happen(3)
    await archive.happen(2, app_id=None)
    await archive.seal()
    with crash_at("anchor.committed"):
        await archive.anchor()
    first = await newest(archive.git, REPO)
    assert await archive.anchor() == 1
    assert await newest(archive.git, REPO) == first
    await archive.happen(1)
    await archive.seal()
    assert await anchor_all(archive.db, archive.git, archive.at) == 0  # the minute is not over
    await archive.anchor()
    rows = await archive.chain()
    tip = await newest(archive.git, REPO)
    assert first is not None
    assert tip is not None
    assert (tip.file.seq, tip.file.hash) == (4, rows[3]["hash"])
    told = [(seq, found) async for _, seq, found in anchors_down_from(archive.git, REPO, tip.commit)]
    assert told == [(4, rows[3]["hash"]), (3, rows[2]["hash"])]
    assert (await verify_platform(archive.db, archive.git)).ok
    await archive.db["audit"].update_one({"app_id": None}, {"$set": {"actor_user_id": None}})
    found = await verify_platform(archive.db, archive.git)
    assert [problem.kind for problem in found.problems] == [CHANGED]


async def test_no_newer_anchor_of_an_app_hides_that_the_platforms_chain_was_written_anew(archive: Archive) -> None:
    await archive.happen(1)
    ids = await archive.happen(3, app_id=None)
    await archive.seal()
    await archive.anchor()
    await set_event(archive, ids[1], {"actor_user_id": None})
    await archive.rewrite(2, PLATFORM)
    for _ in range(2):
        await archive.happen(1)
        await archive.happen(1, app_id=None)
        await archive.seal()
        assert await archive.anchor() == 1
    found = await verify_platform(archive.db, archive.git)
    assert [(one.event_id, one.seq, one.kind) for one in found.problems] == [(ids[2], 3, CHANGED)]
    assert (await archive.verify()).ok


async def test_a_repository_that_is_gone_stops_no_seal_and_its_anchor_catches_up(archive: Archive) -> None:
    await archive.happen(2)
    await archive.git.remove_repository(REPO)
    assert await archive.seal() == 2
    assert await archive.anchor() == 0
    await archive.git.create_repository(REPO, "main")
    assert await archive.anchor() == 1
    assert (await archive.verify()).ok


async def test_the_audit_says_once_a_day_up_to_where_it_is_sealed_and_an_idle_one_says_nothing(archive: Archive) -> None:
    await archive.happen(2)
    await archive.seal()
    for day in range(1, 4):
        archive.at = later(archive.at, timedelta(hours=25))
        if day < 3:
            await archive.happen(1)
        if day == 1:
            with crash_at("seal.advanced"):
                await archive.seal()
            await sweep(archive.db)
        await archive.seal()
        await archive.seal()
    rows = await archive.db["audit"].find({"action": "sealed"}).sort("_id", 1).to_list()
    told = [(row["before"] and row["before"]["sealed_to"], row["after"]["sealed_to"], row["after"]["count"]) for row in rows]
    assert told == [(None, 3, 3), (3, 5, 2)]
    assert len(await archive.order()) == 6
    assert (await archive.verify()).ok


async def test_a_forged_seal_stops_its_own_chain_only_and_is_found(archive: Archive) -> None:
    await archive.happen(2)
    await archive.seal()
    [forged] = seals(archive.app["_id"], 2, "0" * 64, [(new_id(), "0" * 64)])
    await archive.db[SEALS].insert_one(forged.document())
    await archive.happen(1)
    await archive.happen(1, app_id=None)
    await archive.seal()
    assert len(await archive.chain(PLATFORM)) == 1
    assert not (await archive.verify()).ok


async def test_events_of_an_earlier_version_are_sealed_after_an_upgrade(archive: Archive) -> None:
    ids = await archive.happen(3)
    await archive.db[UNSEALED].delete_many({})
    await archive.db["upgrades"].delete_many({})
    await ensure_indexes(archive.db)
    assert await archive.seal() == 3
    assert await archive.order() == ids


async def test_a_chain_is_walked_a_page_at_a_time(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conman.services.audit_verify.PAGE", 3)
    ids = await archive.happen(8)
    await archive.seal()
    shown: list[tuple[int, int]] = []
    await archive.db["audit"].delete_many({"_id": {"$in": [ids[2], ids[3]]}})
    await archive.db[SEALS].delete_many({"_id": {"$in": ids[5:7]}})
    found = await verify_app(archive.db, archive.git, archive.app, lambda done, total: shown.append((done, total)))
    assert [(one.event_id, one.seq, one.kind) for one in found.problems] == [
        (ids[5], 0, CHANGED),
        (ids[6], 0, CHANGED),
        (ids[2], 3, REMOVED),
        (ids[3], 4, REMOVED),
        (None, 6, REMOVED),
        (None, 7, REMOVED),
    ]
    assert shown == [(3, 8), (8, 8)]

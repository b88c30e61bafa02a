"""Whether the audit is what was sealed: events, seals, the head of each chain and its anchor (`spec.md` 14).

docs/adr/0035-the-audit-is-a-chain.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo import ASCENDING, DESCENDING

from conman.domain.seal_check import ChainCheck, Problem, ProblemKind
from conman.domain.sealing import AUDIT_REF, PLATFORM, batch_of, seal_of
from conman.git.adapter import GitAdapter, GitError, ObjectMissing
from conman.services.audit_anchor import AnchorUnreadable, anchors_down_from, newest
from conman.services.audit_unsealed import problems_outside
from conman.services.clock import now
from conman.services.sealing import CHAINS, SEALS
from conman.store.database import Database, Document

PAGE = 500
MOST_PROBLEMS = 1000
"""After so many problems the walk ends: what is left unread would not make the chain whole."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Witness:
    """What a commit outside the database says of a chain."""

    seq: int
    hash: str
    repo: str
    commit: str

    @property
    def name(self) -> str:
        """How it is called in a problem."""
        return f"the anchor {self.commit[:12]} in {self.repo}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found. `unread` names repositories whose anchors could not be compared, with the reason."""

    chain: str
    checked: int
    sealed_to: int
    problems: Sequence[Problem]
    anchor: Witness | None = None
    unread: Sequence[str] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether every sealed event is there, unchanged, and in its place."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For JSON (`api.md` 3)."""
        anchor = None if self.anchor is None else {"seq": self.anchor.seq, "commit_sha": self.anchor.commit}
        return {
            "ok": self.ok,
            "checked": self.checked,
            "sealed_to": self.sealed_to,
            "problems": [problem.as_dict() for problem in self.problems],
            "anchor": anchor,
        }


def no_progress(_done: int, _total: int) -> None:
    """For callers that show none."""


async def verify_app(db: Database, git: GitAdapter, app: Document, progress: Progress = no_progress) -> Verification:
    """Verify the chain of an app. Raises `GitError` when its repository can't be read: half a proof is none."""
    chain, repo = app["_id"], app["repo_path"]
    witnesses: list[Witness] = []
    problems: list[Problem] = []
    try:
        # Before the head is read: what is anchored by then, the head must have.
        found = await newest(git, repo)
    except AnchorUnreadable as error:
        problems.append(Problem(None, 0, ProblemKind.CHANGED, f"The anchor can't be used: {error}."))
    else:
        if found is not None and found.file.chain != chain:
            problems.append(Problem(None, found.file.seq, ProblemKind.CHANGED, f"{AUDIT_REF} is another app's."))
        elif found is not None:
            witnesses.append(Witness(found.file.seq, found.file.hash, repo, found.commit))
    verification = await _verify(db, chain, witnesses, problems, progress)
    if verification.ok or not witnesses:
        return verification
    return await _with_first_contradicted(db, git, verification, witnesses[0])


async def verify_platform(db: Database, git: GitAdapter, progress: Progress = no_progress) -> Verification:
    """Verify the chain of events without an app, against what the apps' anchors say of it."""
    witnesses: list[Witness] = []
    unread: list[str] = []
    async for app in db["apps"].find({"repo_path": {"$exists": True}}, {"repo_path": 1}):
        try:
            found = await newest(git, app["repo_path"])
        except (GitError, AnchorUnreadable) as error:  # the others still witness, and this one is named
            unread.append(f"{app['repo_path']}: {error}")
            continue
        if found is not None and found.file.platform is not None:
            witnesses.append(Witness(*found.file.platform, app["repo_path"], found.commit))
    return await _verify(db, PLATFORM, witnesses, [], progress, unread)


async def _verify(
    db: Database,
    chain: str,
    witnesses: Sequence[Witness],
    problems: list[Problem],
    progress: Progress,
    unread: Sequence[str] = (),
) -> Verification:
    kept, last = await _ends(db, chain)
    head = kept if kept is None or _is_sound(kept) else None
    sealed_to = max([0 if head is None else head["seq"], *(one.seq for one in witnesses)])
    beyond = last is not None and not _is_known_to(head, last)
    if last is not None and beyond:
        sealed_to = max(sealed_to, int(last["seq"]))
    if kept is not None and head is None:
        problems.append(Problem(None, sealed_to, ProblemKind.CHANGED, "The head of the chain is none that sealing wrote."))
    else:
        problems += _of_the_head(head, last, sealed_to, beyond=beyond)
    known = [(one.seq, one.hash, one.name) for one in witnesses]
    if head is not None:
        known.append((head["seq"], head["hash"], "the head of the chain"))
    check = ChainCheck(known)
    await _walk(db, chain, sealed_to, check, progress)
    problems += check.settled()
    problems += await problems_outside(db, chain, now(), most=MOST_PROBLEMS)
    anchored = head["anchored"] if head is not None else None
    if anchored is not None and not any(one.seq >= anchored["seq"] for one in witnesses):
        detail = f"The chain was anchored here by {anchored['commit']}, which {AUDIT_REF} has no more."
        problems.append(Problem(await _event_at(db, chain, anchored["seq"]), anchored["seq"], ProblemKind.CHANGED, detail))
    anchor = max(witnesses, key=lambda one: one.seq, default=None)
    ordered = sorted(problems, key=lambda one: one.seq)
    return Verification(chain, check.checked, sealed_to, ordered, anchor, unread)


async def _ends(db: Database, chain: str) -> tuple[Document | None, Document | None]:
    """The head, read after the last seal: sealing that goes on meanwhile moves it up, never down."""
    last = await db[SEALS].find({"chain": chain, "seq": {"$gte": 1}}).sort([("seq", DESCENDING)]).limit(1).to_list()
    return await db[CHAINS].find_one({"_id": chain}), last[0] if last else None


def _is_sound(head: Document) -> bool:
    """Whether a head has the form in which sealing keeps it; anything may have been written there."""
    try:
        if head["pending"] is not None:
            _ = batch_of(head["pending"]).seals
        anchored = head["anchored"]
        places = [head["seq"], *([] if anchored is None else [anchored["seq"]])]
        texts = [head["hash"], *([] if anchored is None else [anchored["commit"]])]
    except (KeyError, TypeError, ValueError):
        return False
    return all(isinstance(one, int) and one >= 0 for one in places) and all(isinstance(one, str) for one in texts)


def _is_known_to(head: Document | None, last: Document) -> bool:
    """Whether the last seal is one up to which the head stands, or one that it says is being made."""
    if head is None:
        return False
    in_work = [] if head["pending"] is None else batch_of(head["pending"]).seals
    return last["seq"] <= head["seq"] or seal_of(last) in in_work


def _of_the_head(head: Document | None, last: Document | None, sealed_to: int, *, beyond: bool) -> list[Problem]:
    """What was done to the head itself."""
    event_id = str(last["_id"]) if last is not None else None
    if head is None:
        gone = Problem(event_id, sealed_to, ProblemKind.REMOVED, "The head of the chain is gone.")
        return [gone] if sealed_to else []
    found: list[Problem] = []
    if head.get("rebuilt_at") is not None:
        detail = f"The head of the chain was gone, and was made anew at {head['rebuilt_at']} behind the seals that were left."
        found.append(Problem(None, head["rebuilt_seq"], ProblemKind.REMOVED, detail))
    if last is not None and beyond:
        detail = f"It is sealed, and the head of the chain says {head['seq']}: one of both was changed."
        found.append(Problem(event_id, int(last["seq"]), ProblemKind.CHANGED, detail))
    return found


async def _walk(db: Database, chain: str, sealed_to: int, check: ChainCheck, progress: Progress) -> None:
    """Lead the check through all places: a page of seals with their events at a time."""
    cursor = db[SEALS].find({"chain": chain, "seq": {"$gte": 1, "$lte": sealed_to}}).sort([("seq", ASCENDING)]).batch_size(PAGE)
    place = 0
    page: list[Document] = []

    async def look() -> None:
        nonlocal place
        ids = [row["_id"] for row in page]
        events = {event["_id"]: event async for event in db["audit"].find({"_id": {"$in": ids}})}
        # Hashing holds up nobody else: a chain may be long.
        place = await asyncio.to_thread(_check_page, check, place, list(page), events)
        progress(min(place, sealed_to), sealed_to)
        page.clear()

    async for row in cursor:
        if not isinstance(row["seq"], int):
            continue  # its place shows as one where nothing is
        page.append(row)
        if len(page) == PAGE:
            await look()
            if len(check.problems) >= MOST_PROBLEMS:
                return
    if page:
        await look()
    _gap(check, place, sealed_to + 1)


def _check_page(check: ChainCheck, place: int, rows: Sequence[Document], events: dict[str, Document]) -> int:
    for row in rows:
        _gap(check, place, row["seq"])
        check.place(seal_of(row), events.get(row["_id"]))
        place = max(place, row["seq"])
        if len(check.problems) >= MOST_PROBLEMS:
            break
    return place


def _gap(check: ChainCheck, place: int, until: int) -> None:
    for seq in range(place + 1, until):
        if len(check.problems) >= MOST_PROBLEMS:
            return
        check.missing(seq)


async def _event_at(db: Database, chain: str, seq: int) -> str | None:
    row = await db[SEALS].find_one({"chain": chain, "seq": seq}, {"_id": 1})
    return None if row is None else str(row["_id"])


async def _with_first_contradicted(db: Database, git: GitAdapter, found: Verification, witness: Witness) -> Verification:
    """A chain that was written anew as a whole is at odds with its last anchor only: the anchors before it say from where on."""
    contradicted = [one for one in found.problems if one.seq == witness.seq and witness.name in one.detail]
    if not contradicted:
        return found
    first: tuple[str, int] | None = None
    try:
        async for commit, seq, expected in anchors_down_from(git, witness.repo, witness.commit):
            kept = await db[SEALS].find_one({"chain": found.chain, "seq": seq}, {"hash": 1})
            if kept is not None and kept["hash"] == expected:
                break
            first = (commit, seq)
    except (ObjectMissing, AnchorUnreadable):  # that the last anchor contradicts the chain is told already
        return found
    if first is None or first[1] == witness.seq:
        return found
    detail = (
        f"The chain was written anew: this is the first of the places that {AUDIT_REF} holds which is another one ({first[0]})."
    )
    told = Problem(await _event_at(db, found.chain, first[1]), first[1], ProblemKind.CHANGED, detail)
    problems = sorted([*found.problems, told], key=lambda one: one.seq)
    return Verification(found.chain, found.checked, found.sealed_to, problems, found.anchor, found.unread)

"""The heads of the audit's chains outside the database: commits on a private ref of each app's repository.

An app's anchor carries the head of the chain of events without an app along. docs/adr/0035-the-audit-is-a-chain.md
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any

import structlog

from conman.domain.sealing import ANCHOR_FILE, AUDIT_REF, PLATFORM, AnchorFile, anchor_bytes, read_anchor
from conman.domain.times import later
from conman.faults import fault_point
from conman.git.adapter import GitAdapter, GitError, StaleRef, WriteFile
from conman.services.sealing import CHAINS, SEALS
from conman.services.workspace_refs import clerk
from conman.store.database import Database, Document

log = structlog.get_logger(__name__)

ANCHOR_EVERY = timedelta(minutes=1)
"""How often an app's repository gets a commit at most."""

TRAILER = "Conman-Audit"
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Anchor:
    """A commit of the ref, and what it says."""

    commit: str
    file: AnchorFile


class AnchorUnreadable(Exception):
    """What the ref points at was not made by Conman."""


async def newest(git: GitAdapter, repo: str, at: str = AUDIT_REF) -> Anchor | None:
    """The last anchor of a repository, or the one `at` a commit. Raises `GitError`, or `AnchorUnreadable`."""
    commit = await git.resolve(repo, at)
    if commit is None:
        return None
    found = await git.read_file(repo, commit, ANCHOR_FILE)
    try:
        return Anchor(commit, read_anchor(found.data if found is not None else b""))
    except ValueError as error:
        raise AnchorUnreadable(f"{AUDIT_REF} is at {commit}, which {error}") from error


async def anchors_down_from(git: GitAdapter, repo: str, commit: str) -> AsyncIterator[tuple[str, int, str]]:
    """(commit, place, hash) of the anchors, newest first, a page at a time. Raises `GitError`, or `AnchorUnreadable`."""
    start: str | None = commit
    while start is not None:
        page = await git.log(repo, start, first_parent=True, limit=_PAGE)
        for one in page:
            for key, value in one.trailers:
                if key == TRAILER:
                    seq, _, found = value.partition(" ")
                    if not (seq.isascii() and seq.isdigit()):
                        raise AnchorUnreadable(f"{AUDIT_REF} contains {one.sha}, which names no place of an audit")
                    yield one.sha, int(seq), found
        parents = page[-1].parents if len(page) == _PAGE else ()
        start = parents[0] if parents else None


async def anchor_all(db: Database, git: GitAdapter, at: str, *, seconds: float = 10) -> int:
    """Anchor the chains that have grown, those that waited longest first, for about so many seconds. Returns how many.

    A repository that can't be reached is left for later: sealing does not wait for it.
    """
    ends_at = monotonic() + seconds
    fields = {"seq": 1, "hash": 1, "sealed_at": 1, "anchored": 1}
    heads = await db[CHAINS].find({"seq": {"$gt": 0}}, fields).to_list()
    platform = next((head for head in heads if head["_id"] == PLATFORM), None)
    due = [head for head in heads if head["_id"] != PLATFORM and _is_due(head, at)]
    made = 0
    for head in sorted(due, key=lambda one: (one["anchored"] or {}).get("at", "")):
        if monotonic() > ends_at:
            break
        try:
            made += await _anchor(db, git, head, platform, at)
        except (GitError, AnchorUnreadable) as error:
            log.warning("audit_not_anchored", app_id=head["_id"], problem=str(error)[:300])
    return made


def _is_due(head: Document, at: str) -> bool:
    anchored = head["anchored"]
    return anchored is None or (anchored["seq"] < head["seq"] and later(anchored["at"], ANCHOR_EVERY) <= at)


async def _anchor(db: Database, git: GitAdapter, head: Document, platform: Document | None, at: str) -> bool:
    chain: str = head["_id"]
    app = await db["apps"].find_one({"_id": chain}, {"repo_path": 1})
    if app is None:
        return False
    repo: str = app["repo_path"]
    last = await newest(git, repo)
    # Again, after the anchor: what another worker has anchored meanwhile, the head has by now.
    head = await db[CHAINS].find_one({"_id": chain}, {"seq": 1, "hash": 1, "sealed_at": 1}) or head
    if last is not None and not await _is_below(db, chain, last, head):
        log.error("audit_anchor_contradicts", app_id=chain, commit=last.commit, seq=last.file.seq)
        return False
    if last is None or last.file.seq < head["seq"]:
        try:
            commit = await _commit(git, repo, head, await _beside(db, chain, platform, last), last)
        except StaleRef:
            return False  # another worker was quicker
        fault_point("anchor.committed")
    else:
        commit = last.commit
    kept = {"seq": head["seq"], "hash": head["hash"], "commit": commit, "at": at}
    older = {"$or": [{"anchored": None}, {"anchored.seq": {"$lt": head["seq"]}}]}
    await db[CHAINS].update_one({"_id": chain, **older}, {"$set": {"anchored": kept}})
    return True


async def _is_below(db: Database, chain: str, last: Anchor, head: Document) -> bool:
    """Whether the chain still has what its last anchor says. Else no newer one hides it: `verify` tells what was done."""
    if last.file.chain != chain or last.file.seq > head["seq"]:
        return False
    return await db[SEALS].find_one({"chain": chain, "seq": last.file.seq, "hash": last.file.hash}, {"_id": 1}) is not None


async def _beside(db: Database, chain: str, platform: Document | None, last: Anchor | None) -> dict[str, Any] | None:
    """What the next anchor says of the platform's chain: the last one's word, where the chain contradicts that.

    The app's chain is anchored on, and time hides no forgery of the platform's.
    """
    said = None if last is None else last.file.platform
    if said is not None:
        seq, found = said
        kept = await db[SEALS].find_one({"chain": PLATFORM, "seq": seq, "hash": found}, {"_id": 1})
        if kept is None:
            log.error("audit_anchor_contradicts", app_id=chain, platform=True, seq=seq)
        if kept is None or platform is None or platform["seq"] <= seq:
            return {"seq": seq, "hash": found}
    return None if platform is None else {"seq": platform["seq"], "hash": platform["hash"]}


async def _commit(git: GitAdapter, repo: str, head: Document, platform: dict[str, Any] | None, last: Anchor | None) -> str:
    data = anchor_bytes(chain=head["_id"], seq=head["seq"], last_hash=head["hash"], at=head["sealed_at"], platform=platform)
    parent = None if last is None else last.commit
    return await git.commit_files(
        repo,
        ref=AUDIT_REF,
        expected_old=parent,
        parent=parent,
        changes=[WriteFile(ANCHOR_FILE, data)],
        author=clerk(head["sealed_at"]),
        message=f"Seal the audit up to event {head['seq']}\n\n{TRAILER}: {head['seq']} {head['hash']}\n",
    )

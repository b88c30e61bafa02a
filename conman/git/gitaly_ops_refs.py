"""Refs in operations mode: read, moved by compare-and-swap all or none, and the short-lived ones that operations write to.

Where an operation insists on a ref to write to, it gets a new one of ours; the target then moves in the same transaction in
which that one goes. What a death in between leaves is swept by its age.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

import grpc

from conman.git.adapter import GitError, ObjectMissing, RefUpdate, StaleRef
from conman.git.checks import checked_updates, shown
from conman.git.gitaly_channel import GitalyError, Kind, Landed
from conman.git.gitaly_ops_merge import is_ancestor
from conman.git.gitaly_ops_remote import Remote
from conman.git.proto import gitaly_pb2 as pb

BRANCHES = "refs/heads/"
SCRATCH_BRANCHES = "refs/heads/conman-tmp/"
"""For `UserCommitFiles`, which writes to branches only."""
SCRATCH_REFS = "refs/merge-requests/conman-tmp/"
"""For `UserMergeToRef` and `UserRebaseToRef`: GitLab's Gitaly refuses a target that is not below `refs/merge-requests`."""
SCRATCH_LIFETIME = 3600
"""Seconds after which a ref of ours is taken to be left by the dead; an operation takes a few."""
LOCK_PATIENCE = 5.0
"""Seconds that a move waits for refs that another locks (a move takes milliseconds) before it gives up."""
UPDATES_AT_A_TIME = 500
"""Moves in one message of a transaction: 100 KB with names of the usual length."""
_PAUSE = 0.02
_ZERO = b"0" * 40


async def list_refs(remote: Remote, prefix: str) -> dict[str, str]:
    """Name → sha of the refs that start with `prefix`, sorted by name; our short-lived ones are nobody's business."""
    folder = prefix[: prefix.rfind("/") + 1] or "refs/"
    found = await _matching(remote, [folder])
    ours = (SCRATCH_BRANCHES, SCRATCH_REFS)
    return {name: found[name] for name in sorted(found) if name.startswith(prefix) and not name.startswith(ours)}


async def held(remote: Remote, refs: Iterable[str]) -> dict[str, str]:
    """What refs hold, not peeled; those that don't exist are left out."""
    names = list(refs)
    found = await _matching(remote, names)
    return {name: found[name] for name in names if name in found}


async def update_refs(remote: Remote, updates: Sequence[RefUpdate]) -> None:
    """Move all refs or none, as the port has it."""
    checked_updates(remote.operation, updates)
    if not updates:
        await remote.require()
        return
    await _check_targets(remote, updates)
    found = await held(remote, [update.ref for update in updates])
    _compare(remote, updates, found)
    moving = [update for update in updates if update.old is not None or update.new is not None]
    if moving:
        await move_refs(remote, moving)


async def place(remote: Remote, ref: str, expected_old: str | None, sha: str, scratch: RefUpdate | None = None) -> bool:
    """Move a ref to a commit that was made, and `scratch` with it; False when it is there already: a repeat, and fine.

    Raises `StaleRef`.
    """
    move = RefUpdate(ref, expected_old, sha)
    try:
        await move_refs(remote, [move] if scratch is None else [move, scratch])
    except StaleRef as error:
        if (await held(remote, [ref])).get(ref) == sha:
            return False
        if error.ref != ref:
            raise GitError(remote.operation, f"{error.ref} is gone before its time", safe_to_repeat=True) from error
        raise
    return True


async def compare(remote: Remote, ref: str, expected_old: str | None, sha: str) -> bool:
    """Whether a ref is at `sha` already. Raises `StaleRef` when it is neither there nor where it was expected."""
    checked_updates(remote.operation, [RefUpdate(ref, expected_old, sha)])
    found = (await held(remote, [ref])).get(ref)
    if found != sha and found != expected_old:
        raise StaleRef(remote.operation, ref)
    return found == sha


async def move_refs(remote: Remote, updates: Sequence[RefUpdate]) -> None:
    """Compare and swap all refs or none; what became of a move whose answer was lost is read. Raises `StaleRef`."""

    async def attempt() -> None:
        requests = _requests(remote, updates)
        await remote.channel.write(remote.operation, remote.channel.stubs.refs.UpdateReferences, requests)

    async def look() -> Landed[None] | None:
        return await looked(remote, updates)

    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            await remote.channel.settle(attempt, look)
            return
        except GitalyError as error:
            if await look() is not None:
                return
            # They are where they were expected after all: another one holds their locks, or held them then.
            if error.code is not grpc.StatusCode.ABORTED:
                raise
            if time.monotonic() >= deadline:
                raise GitError(remote.operation, "a ref is locked by another program", safe_to_repeat=True) from error
        await asyncio.sleep(_PAUSE)


async def looked(remote: Remote, updates: Sequence[RefUpdate]) -> Landed[None] | None:
    """What became of a move whose answer was lost: `Landed` when all refs are where it would put them, or further on from there.

    None when they are where they were expected; raises `StaleRef` when somebody else moved one.
    """
    found = await held(remote, [update.ref for update in updates])
    moved = [update for update in updates if update.new != update.old]
    if moved and all([await _reached(remote, update, found.get(update.ref)) for update in moved]):
        return Landed(None)
    _compare(remote, updates, found)
    return None


async def _reached(remote: Remote, update: RefUpdate, there: str | None) -> bool:
    """Whether a ref is at its new value, or at a commit that contains it: somebody may have built on it since."""
    new = update.new
    if there == new:
        return True
    if there is None or new is None or there == update.old:
        return False
    return bool(await remote.unless_missing(lambda: is_ancestor(remote, new, there)))


@asynccontextmanager
async def scratch_ref(remote: Remote, prefix: str) -> AsyncIterator[str]:
    """The name of a new ref of ours, which is gone after the block however that ends."""
    ref = f"{prefix}{int(time.time())}-{uuid.uuid4().hex}"
    try:
        yield ref
    except BaseException:
        # It may have been written although the call failed. When it can't be deleted now, the sweep takes it later.
        with suppress(GitError):
            await asyncio.shield(delete_refs(remote, [ref]))
        raise


async def sweep(remote: Remote, now: float) -> None:
    """Delete the refs of ours that the dead left."""
    found = await _matching(remote, [SCRATCH_BRANCHES, SCRATCH_REFS])
    old = [name for name in found if _made_at(name) < now - SCRATCH_LIFETIME]
    if old:
        await delete_refs(remote, old)


async def delete_refs(remote: Remote, refs: Sequence[str]) -> None:
    """Delete refs of ours, wherever they are; one that does not exist is fine."""
    request = pb.DeleteRefsRequest(repository=remote.address, refs=[ref.encode() for ref in refs])
    reply = await remote.channel.write(remote.operation, remote.channel.stubs.refs.DeleteRefs, request)
    if reply.git_error:
        raise GitError(remote.operation, f"refs could not be deleted: {reply.git_error}", safe_to_repeat=True)


async def _matching(remote: Remote, patterns: Sequence[str]) -> dict[str, str]:
    request = pb.ListRefsRequest(repository=remote.address, patterns=[pattern.encode() for pattern in patterns])
    replies = await remote.channel.read_all(remote.operation, remote.channel.stubs.refs.ListRefs, request, kind=Kind.LONG)
    return {shown(reference.name): reference.target for reply in replies for reference in reply.references}


async def _requests(remote: Remote, updates: Sequence[RefUpdate]) -> AsyncIterator[pb.UpdateReferencesRequest]:
    repository: pb.Repository | None = remote.address
    for start in range(0, len(updates), UPDATES_AT_A_TIME):
        part = [
            pb.UpdateReferencesRequest.Update(
                reference=update.ref.encode(),
                old_object_id=update.old.encode() if update.old else _ZERO,
                new_object_id=update.new.encode() if update.new else _ZERO,
            )
            for update in updates[start : start + UPDATES_AT_A_TIME]
        ]
        yield pb.UpdateReferencesRequest(repository=repository, updates=part)
        repository = None


async def _check_targets(remote: Remote, updates: Sequence[RefUpdate]) -> None:
    for update in updates:
        if update.new is None:
            continue
        commit = await remote.find(update.new)
        if commit is None and not await remote.has_object(update.new):
            raise ObjectMissing(remote.operation, f"object {update.new}")
        if update.ref.startswith(BRANCHES) and (commit is None or commit.id != update.new):
            raise GitError(remote.operation, f"{update.ref} can only hold a commit", safe_to_repeat=False)


def _compare(remote: Remote, updates: Sequence[RefUpdate], found: dict[str, str]) -> None:
    for update in updates:
        if found.get(update.ref) != update.old:
            raise StaleRef(remote.operation, update.ref)


def _made_at(name: str) -> float:
    """When a ref of ours was made, by its name; one that does not say is old."""
    seconds = name.rpartition("/")[2].partition("-")[0]
    return float(seconds) if seconds.isascii() and seconds.isdigit() else 0.0

"""Making commits on a server of operations: the operation that fits, held against what was wanted, else a push.

What is to be made is known to the byte beforehand. So whatever an operation makes is compared by its name: the same name is
the same commit; with another name (a server that converts line ends, merges by other rules or signs) it is not used.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import grpc

from conman.git.adapter import GitError, RefUpdate
from conman.git.gitaly_channel import GitalyChannel, GitalyError, Kind, Landed
from conman.git.gitaly_ops_actions import Actions, messages
from conman.git.gitaly_ops_commits import NewCommit
from conman.git.gitaly_ops_plan import Facts, Route, Work, plan
from conman.git.gitaly_ops_push import Pusher, PushRefused
from conman.git.gitaly_ops_refs import (
    BRANCHES,
    SCRATCH_BRANCHES,
    SCRATCH_LIFETIME,
    SCRATCH_REFS,
    compare,
    delete_refs,
    held,
    looked,
    move_refs,
    place,
    scratch_ref,
    sweep,
)
from conman.git.gitaly_ops_session import Session
from conman.git.proto import gitaly_pb2 as pb

_FORBIDDEN = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
"""What the server does not allow is not tried in another way."""


@dataclass(frozen=True, slots=True)
class Target:
    """The ref that moves to what is made."""

    ref: str
    expected_old: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be made: commits, each on the one before, and what each kind of operation is told of them."""

    work: Work
    commits: tuple[NewCommit, ...]
    known_tree: str | None
    """A tree that the server has, the nearest to the first commit's."""
    actions: Actions | None = None
    """From the parent's tree, for files and squashes."""
    source: str = ""
    """What is merged in, squashed, or rebased."""
    onto: str = ""
    """What it is merged into, squashed or rebased on."""
    squashable: bool = False
    """The source descends from `onto`, and the message ends its last line, as `UserSquash` has it."""

    @property
    def tip(self) -> NewCommit:
        """The commit that the target moves to."""
        return self.commits[-1]


class Differs(PushRefused):
    """The server makes another commit (`made`) than the one that was wanted, and does not take that one by a push."""

    def __init__(self, operation: str, made: str, refusal: str, reason: str) -> None:
        super().__init__(operation, refusal, reason)
        self.made = made


class NotSupported(GitError):
    """The server says OK to an operation and does nothing."""

    def __init__(self, operation: str) -> None:
        message = "the server says OK and names no commit: it does not support this operation"
        super().__init__(operation, message, safe_to_repeat=False)


class _Unfit(Exception):
    """The operation does not make what is wanted; `made` is what it makes instead, when that is known."""

    def __init__(self, why: str, made: str = "") -> None:
        super().__init__(why)
        self.made = made


_Operation = Callable[[Session, Wanted, str, str | None], Awaitable[str]]
"""An operation that writes to a ref (with an expected old value): the sha that it made, empty for none."""


class Maker:
    """Makes commits on one server, and clears up what the dead left of it."""

    def __init__(self, channel: GitalyChannel) -> None:
        self._pusher = Pusher(channel)
        self._swept: dict[str, float] = {}

    async def make(self, session: Session, target: Target, wanted: Wanted) -> str:
        """Make commits and move the target to the last; its sha. A target that is there already is a repeat, and fine.

        Raises `StaleRef`; `Differs` or `PushRefused` for what the server can't make or does not take; `NotSupported`.
        """
        sha = wanted.tip.sha
        if await compare(session, target.ref, target.expected_old, sha):
            return sha
        chosen = plan(_facts(target, wanted))
        why, made = chosen.reason, ""
        if chosen.route is not Route.PUSH:
            try:
                await self._operate(session, target, wanted, chosen.route)
                return sha
            except _Unfit as error:
                why, made = str(error), error.made
        move = RefUpdate(target.ref, target.expected_old, sha)
        try:
            await self._pusher.push(session, move, wanted.commits, wanted.known_tree, why)
        except PushRefused as error:
            if made:
                raise Differs(session.operation, made, str(error), why) from error
            raise
        return sha

    async def _operate(self, session: Session, target: Target, wanted: Wanted, route: Route) -> None:
        """Make it by an operation and have the target there. Raises `_Unfit` when that is not possible, and nothing moved."""
        match route:
            case Route.BRANCH:
                await _on_branch(session, target, wanted)
            case Route.SQUASH:
                made = await _unless_refused(session, _squash(session, wanted))
                _hold_against(wanted, made)
                await place(session, target.ref, target.expected_old, made)
            case Route.SCRATCH:
                await self._on_scratch(session, target, wanted, SCRATCH_BRANCHES, _commit_files)
            case Route.MERGE:
                await self._on_scratch(session, target, wanted, SCRATCH_REFS, _merge_to_ref)
            case _:
                await self._on_scratch(session, target, wanted, SCRATCH_REFS, _rebase_to_ref)

    async def _on_scratch(self, session: Session, target: Target, wanted: Wanted, prefix: str, operation: _Operation) -> None:
        await self._sweep(session)
        async with scratch_ref(session, prefix) as scratch:

            async def attempt() -> str:
                return await operation(session, wanted, scratch, None)

            async def look() -> Landed[str] | None:
                found = (await held(session, [scratch])).get(scratch)
                return None if found is None else Landed(found)

            made = await _unless_refused(session, session.channel.settle(attempt, look))
            _hold_against(wanted, made)
            if not await place(session, target.ref, target.expected_old, made, RefUpdate(scratch, made, None)):
                await delete_refs(session, [scratch])

    async def _sweep(self, session: Session) -> None:
        """Once an hour and repository; what can't be swept now is swept then."""
        now = time.time()
        if now - self._swept.get(session.repo, 0.0) > SCRATCH_LIFETIME:
            self._swept[session.repo] = now
            with suppress(GitError):
                await sweep(session, now)


def _facts(target: Target, wanted: Wanted) -> Facts:
    tip = wanted.tip
    return Facts(
        work=wanted.work,
        parents=len(tip.parents),
        to_branch=target.ref.startswith(BRANCHES),
        to_present=target.expected_old is not None,
        zone=tip.committer.zone is not None,
        one_time=(tip.author.seconds, tip.author.offset) == (tip.committer.seconds, tip.committer.offset),
        message=bool(tip.message),
        plain=wanted.actions is None or wanted.actions.plain,
        attributes=wanted.actions is not None and wanted.actions.attributes,
        squashable=wanted.squashable,
    )


def _hold_against(wanted: Wanted, made: str) -> None:
    if made != wanted.tip.sha:
        raise _Unfit(f"a commit that comes out as {wanted.tip.sha} here and as {made} there", made)


async def _on_branch(session: Session, target: Target, wanted: Wanted) -> None:
    sha = wanted.tip.sha

    async def attempt() -> str:
        return await _commit_files(session, wanted, target.ref, target.expected_old)

    async def look() -> Landed[str] | None:
        return None if await looked(session, [RefUpdate(target.ref, target.expected_old, sha)]) is None else Landed(sha)

    try:
        made = await _unless_refused(session, session.channel.settle(attempt, look))
    except _Unfit:
        # It may be that another one moved the branch: that wants an answer, not another way.
        if await look() is None:
            raise
        return
    if made != sha:
        await move_refs(session, [RefUpdate(target.ref, made, target.expected_old)])
    _hold_against(wanted, made)


async def _unless_refused(session: Session, call: Awaitable[str]) -> str:
    """The sha that an operation made. Raises `_Unfit` for one that the server can't make, `NotSupported` for none."""
    try:
        made = await call
    except GitalyError as error:
        if error.transient or error.code in _FORBIDDEN:
            raise
        raise _Unfit(f"what is refused: {error.details}") from error
    if not made:
        raise NotSupported(session.operation)
    return made


async def _commit_files(session: Session, wanted: Wanted, ref: str, expected_old: str | None) -> str:
    tip = wanted.tip
    header = pb.UserCommitFilesRequestHeader(
        repository=session.address,
        user=tip.committer.user(),
        branch_name=ref.removeprefix(BRANCHES).encode(),
        commit_message=tip.message,
        commit_author_name=tip.author.name,
        commit_author_email=tip.author.email,
        start_sha=tip.parents[0] if tip.parents else "",
        timestamp=tip.committer.timestamp,
        expected_old_oid=expected_old or "",
    )
    actions = () if wanted.actions is None else wanted.actions.actions

    async def requests() -> AsyncIterator[pb.UserCommitFilesRequest]:
        yield pb.UserCommitFilesRequest(header=header)
        async for message in messages(session, actions):
            yield message

    reply = await session.channel.write(session.operation, session.channel.stubs.operations.UserCommitFiles, requests())
    if reply.pre_receive_error:
        raise GitError(session.operation, f"a hook refuses the commit: {reply.pre_receive_error}", safe_to_repeat=False)
    if reply.index_error:
        raise _Unfit(f"what is refused: {reply.index_error}")
    return reply.branch_update.commit_id


async def _merge_to_ref(session: Session, wanted: Wanted, ref: str, expected_old: str | None) -> str:
    tip = wanted.tip
    request = pb.UserMergeToRefRequest(
        repository=session.address,
        user=tip.committer.user(),
        source_sha=wanted.source,
        target_ref=ref.encode(),
        message=tip.message,
        first_parent_ref=wanted.onto.encode(),
        timestamp=tip.committer.timestamp,
        expected_old_oid=expected_old or "",
    )
    method = session.channel.stubs.operations.UserMergeToRef
    return (await session.channel.write(session.operation, method, request)).commit_id


async def _rebase_to_ref(session: Session, wanted: Wanted, ref: str, expected_old: str | None) -> str:
    request = pb.UserRebaseToRefRequest(
        repository=session.address,
        user=wanted.tip.committer.user(),
        source_sha=wanted.source,
        target_ref=ref.encode(),
        first_parent_ref=wanted.onto.encode(),
        timestamp=wanted.tip.committer.timestamp,
        expected_old_oid=expected_old or "",
    )
    method = session.channel.stubs.operations.UserRebaseToRef
    return (await session.channel.write(session.operation, method, request)).commit_id


async def _squash(session: Session, wanted: Wanted) -> str:
    """It moves no ref, and the same call makes the same commit: it may be made again like a read."""
    tip = wanted.tip
    request = pb.UserSquashRequest(
        repository=session.address,
        user=tip.committer.user(),
        start_sha=wanted.onto,
        end_sha=wanted.source,
        author=tip.author.user(),
        commit_message=tip.message,
        timestamp=tip.committer.timestamp,
    )
    method = session.channel.stubs.operations.UserSquash
    return (await session.channel.read(session.operation, method, request, kind=Kind.WRITE)).squash_sha

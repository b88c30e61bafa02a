"""Making commits in operations mode: what each call of the port wants, computed first, then made."""

from __future__ import annotations

from collections.abc import Sequence

import pygit2

from conman.git.adapter import CommitOutcome, FileChange, MoveFile, Signature
from conman.git.checks import checked_message, path_problem
from conman.git.gitaly_ops_actions import Actions, actions_between
from conman.git.gitaly_ops_commits import NewCommit, stamp_of
from conman.git.gitaly_ops_merge import disagreement, is_ancestor, trial_merge, trial_revert
from conman.git.gitaly_ops_merge import rebase as replay
from conman.git.gitaly_ops_plan import Work
from conman.git.gitaly_ops_refs import place
from conman.git.gitaly_ops_remote import Place
from conman.git.gitaly_ops_session import EMPTY_TREE, Session
from conman.git.gitaly_ops_write import Differs, Maker, Target, Wanted
from conman.git.local_read import find_object
from conman.git.local_write import TreeEdit
from conman.git.proto import gitaly_pb2 as pb


async def commit_files(
    session: Session,
    maker: Maker,
    target: Target,
    parent: str | None,
    changes: Sequence[FileChange],
    author: Signature,
    committer: Signature,
    message: str,
) -> str:
    """Commit changes on top of a parent. Raises `StaleFile`, `ChangeRefused`, `StaleRef`."""
    base = await _on_top_of(session, [] if parent is None else [parent])
    await session.fetch_blobs(await session.run(lambda repository: _moved(repository, base, changes)))

    def work(repository: pygit2.Repository) -> str:
        edit = TreeEdit(session.operation, repository, _tree(repository, base.tree_id))
        for change in changes:
            edit.apply(change)
        return str(edit.write())

    tree = await session.run(work)
    parents = () if parent is None else (base.id,)
    commit = _commit(session, tree, parents, author, committer, message)
    return await _make_files(session, maker, target, base, commit)


async def commit_tree_of(
    session: Session,
    maker: Maker,
    target: Target,
    tree_of: str,
    parents: Sequence[str],
    author: Signature,
    committer: Signature,
    message: str,
) -> str:
    """Commit the tree of a commit on top of others."""
    source, *on = await session.commits(tree_of, *parents)
    commit = _commit(session, source.tree_id, tuple(one.id for one in on), author, committer, message)
    # The operation ends the message's last line where it has no end.
    squashable = len(on) == 1 and message.endswith("\n") and await is_ancestor(session, on[0].id, source.id)
    actions: Actions | None = None
    if len(on) < 2 and not squashable:
        base = await _on_top_of(session, parents)
        await session.fetch_tree(source)
        actions = await session.run(lambda repository: _actions(repository, base.tree_id, source.tree_id))
        places: dict[str, Place | None] = {
            action.blob: (source.id, action.path) for action in actions.actions if action.blob is not None
        }
        await session.fetch_blobs(places)
    wanted = Wanted(
        Work.SQUASH,
        (commit,),
        known_tree=source.tree_id,
        actions=actions,
        source=source.id,
        onto=on[0].id if on else "",
        squashable=squashable,
    )
    return await maker.make(session, target, wanted)


async def merge(
    session: Session, maker: Maker, target: Target, ours: str, theirs: str, author: Signature, message: str
) -> CommitOutcome:
    """Merge two commits; `ours` itself when it contains `theirs`."""
    one, two = await session.commits(ours, theirs)
    if await is_ancestor(session, two.id, one.id):
        await place(session, target.ref, target.expected_old, one.id)
        return CommitOutcome(one.id)
    tried = await trial_merge(session, one, two)
    if tried.tree_id is None:
        return CommitOutcome(None, tried.conflicts)
    commit = _commit(session, tried.tree_id, (one.id, two.id), author, author, message)
    wanted = Wanted(Work.MERGE, (commit,), known_tree=one.tree_id, source=two.id, onto=one.id)
    return await _made_or_conflicts(session, maker, target, wanted, one, two)


async def rebase(session: Session, maker: Maker, target: Target, head: str, onto: str, committer: Signature) -> CommitOutcome:
    """Replay the commits of `head` that `onto` lacks on `onto`."""
    base, source = await session.commits(onto, head)
    who = stamp_of(session.operation, committer)
    replayed = await replay(session, source, base, who)
    if replayed.tip is None:
        return CommitOutcome(None, replayed.conflicts)
    if not replayed.made:
        await place(session, target.ref, target.expected_old, replayed.tip)
        return CommitOutcome(replayed.tip)
    wanted = Wanted(Work.REBASE, replayed.made, known_tree=replayed.start, source=source.id, onto=base.id)
    return await _made_or_conflicts(session, maker, target, wanted, base, source)


async def revert(
    session: Session,
    maker: Maker,
    target: Target,
    onto: str,
    base: str,
    head: str,
    author: Signature,
    message: str,
) -> CommitOutcome:
    """Commit on top of `onto` what takes the difference `base`→`head` back."""
    on, before, after = await session.commits(onto, base, head)
    tried = await trial_revert(session, on, before, after)
    if tried.tree_id is None:
        return CommitOutcome(None, tried.conflicts)
    commit = _commit(session, tried.tree_id, (on.id,), author, author, message)
    return CommitOutcome(await _make_files(session, maker, target, on, commit))


async def _make_files(session: Session, maker: Maker, target: Target, base: pb.GitCommit, commit: NewCommit) -> str:
    actions = await session.run(lambda repository: _actions(repository, base.tree_id, commit.tree))
    places: dict[str, Place | None] = {action.blob: None for action in actions.actions if action.blob is not None}
    await session.fetch_blobs(places)
    return await maker.make(session, target, Wanted(Work.FILES, (commit,), known_tree=base.tree_id, actions=actions))


async def _made_or_conflicts(
    session: Session, maker: Maker, target: Target, wanted: Wanted, ours: pb.GitCommit, theirs: pb.GitCommit
) -> CommitOutcome:
    """A server that merges otherwise and takes no push can't have ours: where the two differ, a person decides."""
    try:
        return CommitOutcome(await maker.make(session, target, wanted))
    except Differs as error:
        conflicts = await disagreement(session, wanted.tip.tree, error.made, ours, theirs)
        if not conflicts:
            raise
        return CommitOutcome(None, conflicts)


async def _on_top_of(session: Session, parents: Sequence[str]) -> pb.GitCommit:
    """The parent with its tree in the store; without one, what stands for no commit at all: the empty tree."""
    if parents:
        return (await session.trees(*parents))[0]
    nothing = pb.GitCommit(tree_id=EMPTY_TREE)
    await session.fetch_tree(nothing)
    return nothing


def _commit(
    session: Session, tree: str, parents: tuple[str, ...], author: Signature, committer: Signature, message: str
) -> NewCommit:
    made_by, written_by = stamp_of(session.operation, author), stamp_of(session.operation, committer)
    return NewCommit(tree, parents, made_by, written_by, checked_message(session.operation, message))


def _moved(repository: pygit2.Repository, base: pb.GitCommit, changes: Sequence[FileChange]) -> dict[str, Place | None]:
    """The blobs of files that move: a tree takes in no file whose content is not there."""
    tree = _tree(repository, base.tree_id)
    wanted: dict[str, Place | None] = {}
    for change in changes:
        if isinstance(change, MoveFile) and change.data is None and path_problem(change.path) is None:
            found = find_object(tree, change.path.split("/"))
            if isinstance(found, pygit2.Blob):
                wanted[str(found.id)] = (base.id, change.path.encode())
    return wanted


def _actions(repository: pygit2.Repository, old: str, new: str) -> Actions:
    return actions_between(_tree(repository, old), _tree(repository, new))


def _tree(repository: pygit2.Repository, sha: str) -> pygit2.Tree:
    return repository[sha].peel(pygit2.Tree)

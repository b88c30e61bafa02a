"""Merging, rebasing and reverting in the local adapter: all in memory, no work tree."""

from __future__ import annotations

import pygit2
from pygit2.enums import SortMode

from conman.git.adapter import CommitOutcome, Conflict, Signature, TrialMerge
from conman.git.checks import conflict_kind, shown
from conman.git.local_read import contains
from conman.git.local_repo import find_commit
from conman.git.local_write import library_signature, write_commit


def trial_merge(operation: str, repository: pygit2.Repository, ours: str, theirs: str) -> TrialMerge:
    """The tree or the conflicts of a merge; several best common ancestors are merged first, as git does."""
    our_commit = find_commit(operation, repository, ours)
    their_commit = find_commit(operation, repository, theirs)
    return _result(repository, repository.merge_commits(our_commit, their_commit))


def merge(
    operation: str,
    repository: pygit2.Repository,
    ours: str,
    theirs: str,
    author: Signature,
    message: str,
) -> CommitOutcome:
    """Write a merge commit that no ref reaches yet; `ours` itself when it contains `theirs`."""
    our_commit = find_commit(operation, repository, ours)
    their_commit = find_commit(operation, repository, theirs)
    if contains(repository, our_commit, their_commit):
        return CommitOutcome(str(our_commit.id))
    tried = _result(repository, repository.merge_commits(our_commit, their_commit))
    if tried.tree_id is None:
        return CommitOutcome(None, tried.conflicts)
    tree = pygit2.Oid(hex=tried.tree_id)
    parents = [our_commit.id, their_commit.id]
    return CommitOutcome(write_commit(operation, repository, tree, parents, author, message, author))


def rebase(operation: str, repository: pygit2.Repository, head: str, onto: str, committer: Signature) -> CommitOutcome:
    """Write the commits of `head` that `onto` lacks again on top of `onto`; the last one's sha, which no ref reaches yet.

    A commit that sits where it belongs already is kept as it is. One that was empty from the start is replayed.
    """
    current = find_commit(operation, repository, onto)
    walker = repository.walk(find_commit(operation, repository, head).id, SortMode.TOPOLOGICAL | SortMode.REVERSE)
    walker.hide(current.id)
    missing = list(walker)
    if any(len(commit.parent_ids) > 1 for commit in missing):
        return CommitOutcome(None)
    who = library_signature(operation, committer)
    for commit in missing:
        if commit.parent_ids == [current.id]:
            current = commit
            continue
        before = _tree_before(repository, commit)
        tried = _result(repository, repository.merge_trees(before, current.tree, commit.tree))
        if tried.tree_id is None:
            return CommitOutcome(None, tried.conflicts)
        tree = pygit2.Oid(hex=tried.tree_id)
        if tree == current.tree_id and commit.tree_id != before.id:
            continue
        made = repository.create_commit(None, commit.author, who, commit.raw_message, tree, [current.id])
        current = find_commit(operation, repository, str(made))
    return CommitOutcome(str(current.id))


def revert(
    operation: str,
    repository: pygit2.Repository,
    onto: str,
    base: str,
    head: str,
    author: Signature,
    message: str,
) -> CommitOutcome:
    """Write a commit on top of `onto` that takes the difference `base`→`head` back; no ref reaches it yet."""
    target = find_commit(operation, repository, onto)
    before = find_commit(operation, repository, base)
    after = find_commit(operation, repository, head)
    tried = _result(repository, repository.merge_trees(after.tree, target.tree, before.tree))
    if tried.tree_id is None:
        return CommitOutcome(None, tried.conflicts)
    tree = pygit2.Oid(hex=tried.tree_id)
    return CommitOutcome(write_commit(operation, repository, tree, [target.id], author, message, author))


def _tree_before(repository: pygit2.Repository, commit: pygit2.Commit) -> pygit2.Tree:
    if commit.parent_ids:
        return commit.parents[0].tree
    return repository[repository.TreeBuilder().write()].peel(pygit2.Tree)


def _result(repository: pygit2.Repository, index: pygit2.Index) -> TrialMerge:
    if index.conflicts is None:
        return TrialMerge(str(index.write_tree(repository)))
    return TrialMerge(None, _conflicts(index))


def _conflicts(index: pygit2.Index) -> tuple[Conflict, ...]:
    staged = [entry.path for entry in index]
    found: dict[bytes, Conflict] = {}
    for base, ours, theirs in index.conflicts or ():
        present = next(side for side in (base, ours, theirs) if side is not None)
        path = str(present.path).encode("utf-8", "surrogateescape")
        below = str(present.path) + "/"
        kind = conflict_kind(
            None if base is None else int(base.mode),
            None if ours is None else int(ours.mode),
            None if theirs is None else int(theirs.mode),
            folder=any(str(other).startswith(below) for other in staged),
        )
        found[path] = Conflict(
            shown(path),
            kind,
            None if base is None else str(base.id),
            None if ours is None else str(ours.id),
            None if theirs is None else str(theirs.id),
        )
    return tuple(found[path] for path in sorted(found))

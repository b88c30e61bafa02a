"""Merging, rebasing and reverting in the local adapter: all in memory, no work tree."""

from __future__ import annotations

from collections.abc import Sequence

import pygit2
from pygit2.enums import SortMode

from conman.git.adapter import CommitOutcome, Signature, TrialMerge
from conman.git.local_read import contains
from conman.git.local_repo import find_commit
from conman.git.local_threeway import NO_RENAMES, finished, merge_trees
from conman.git.local_write import library_signature, write_commit


def trial_merge(operation: str, repository: pygit2.Repository, ours: str, theirs: str) -> TrialMerge:
    """The tree or the conflicts of a merge; several best common ancestors are merged first, as git does."""
    our_commit = find_commit(operation, repository, ours)
    their_commit = find_commit(operation, repository, theirs)
    return _merged(repository, our_commit, their_commit)


def trial_merges(operation: str, repository: pygit2.Repository, base: str, heads: Sequence[str]) -> list[TrialMerge]:
    """Merges one after the other. Those that are clean become commits that no ref reaches: the merge bases follow from them."""
    current = find_commit(operation, repository, base)
    found: list[TrialMerge] = []
    for head in heads:
        commit = find_commit(operation, repository, head)
        if contains(repository, current, commit):
            found.append(TrialMerge(str(current.tree_id)))
            continue
        tried = _merged(repository, current, commit)
        found.append(tried)
        if tried.tree_id is not None:
            tree, who = pygit2.Oid(hex=tried.tree_id), commit.committer
            made = repository.create_commit(None, who, who, "", tree, [current.id, commit.id])
            current = find_commit(operation, repository, str(made))
    return found


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
    tried = _merged(repository, our_commit, their_commit)
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
        tried = merge_trees(repository, before, current.tree, commit.tree)
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
    tried = trial_revert(operation, repository, onto, base, head)
    if tried.tree_id is None:
        return CommitOutcome(None, tried.conflicts)
    tree = pygit2.Oid(hex=tried.tree_id)
    target = find_commit(operation, repository, onto)
    return CommitOutcome(write_commit(operation, repository, tree, [target.id], author, message, author))


def trial_revert(operation: str, repository: pygit2.Repository, onto: str, base: str, head: str) -> TrialMerge:
    """The tree or the conflicts of taking the difference `base`→`head` back from `onto`."""
    present, before, after = (find_commit(operation, repository, revision).tree for revision in (onto, base, head))
    return merge_trees(repository, after, present, before)


def _tree_before(repository: pygit2.Repository, commit: pygit2.Commit) -> pygit2.Tree:
    if commit.parent_ids:
        return commit.parents[0].tree
    return _empty_tree(repository)


def _empty_tree(repository: pygit2.Repository) -> pygit2.Tree:
    return repository[repository.TreeBuilder().write()].peel(pygit2.Tree)


def _merged(repository: pygit2.Repository, ours: pygit2.Commit, theirs: pygit2.Commit) -> TrialMerge:
    index = repository.merge_commits(ours, theirs, flags=NO_RENAMES)
    # The library answers None for unrelated commits, which its type stubs leave out.
    base: pygit2.Oid | None = repository.merge_base(ours.id, theirs.id)
    base_tree = _empty_tree(repository) if base is None else repository[base].peel(pygit2.Tree)
    return finished(repository, index, base_tree, ours.tree, theirs.tree)

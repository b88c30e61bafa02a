"""Merges, rebases and reverts in operations mode: what comes out is computed here, by the rules of every other backend.

Ancestry is asked of the server, trees and blobs come into the local store, and the merge itself is the local backend's. What
is to be written is known, commit by commit, before the server is asked to write anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import pygit2
from pygit2.enums import MergeFlag

from conman.git.adapter import Conflict, GitError, TrialMerge
from conman.git.gitaly_channel import GitalyError, Kind
from conman.git.gitaly_ops_commits import NewCommit, Stamp, message_of, stamp_from
from conman.git.gitaly_ops_needs import Needs, Side, to_merge
from conman.git.gitaly_ops_remote import Place, Remote
from conman.git.gitaly_ops_session import EMPTY_TREE, Session
from conman.git.local_threeway import NO_RENAMES, conflict_at, finished, write_merged
from conman.git.proto import gitaly_pb2 as pb


@dataclass(frozen=True, slots=True)
class Version:
    """A tree in the store, and the commit of the server that has it: None for one that was computed."""

    tree: str
    commit: str | None


@dataclass(frozen=True, slots=True)
class Rebase:
    """What a rebase makes: the commits to write (none: `tip` exists already), or the conflicts of the first that clashes.

    `tip` None without conflicts: the range holds a merge.
    """

    tip: str | None
    made: tuple[NewCommit, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    start: str = ""
    """The tree that the first commit to write is written on."""


def version_of(commit: pb.GitCommit) -> Version:
    """The tree of a commit of the server."""
    return Version(commit.tree_id, commit.id)


async def merge_base(remote: Remote, *revisions: str) -> str | None:
    """The best common ancestor of the first commit and (a merge of) the others; None when there is none."""
    if len(set(revisions)) == 1:
        return revisions[0]
    request = pb.FindMergeBaseRequest(repository=remote.address, revisions=[revision.encode() for revision in revisions])
    reply = await remote.channel.read(remote.operation, remote.channel.stubs.repository.FindMergeBase, request)
    if reply.base:
        return reply.base
    # The same answer comes from a server that does not have the call, and says OK to it all the same.
    if not await _unrelated(remote, revisions[0], revisions[1:]):
        raise GitError(remote.operation, "the server does not tell a merge base: it does not support this", safe_to_repeat=False)
    return None


async def is_ancestor(remote: Remote, ancestor: str, descendant: str) -> bool:
    """Whether a commit contains another (a commit contains itself)."""
    if ancestor == descendant:
        return True
    request = pb.CommitIsAncestorRequest(repository=remote.address, ancestor_id=ancestor, child_id=descendant)
    return (await remote.channel.read(remote.operation, remote.channel.stubs.commits.CommitIsAncestor, request)).value


async def list_commits(remote: Remote, *revisions: str, reverse: bool = False) -> list[pb.GitCommit]:
    """The commits that the revisions reach (`^` excludes), children before parents unless `reverse`."""
    request = pb.ListCommitsRequest(
        repository=remote.address, revisions=revisions, order=pb.ListCommitsRequest.TOPO, reverse=reverse
    )
    replies = await remote.channel.read_all(remote.operation, remote.channel.stubs.commits.ListCommits, request, kind=Kind.LONG)
    return [commit for reply in replies for commit in reply.commits]


async def trial_merge(session: Session, ours: pb.GitCommit, theirs: pb.GitCommit) -> TrialMerge:
    """The tree or the conflicts of a merge; several best common ancestors are merged first, as git does."""
    bases = await _best_bases(session, ours.id, theirs.id)
    return await _merge_from(session, bases, version_of(ours), version_of(theirs))


async def trial_revert(session: Session, onto: pb.GitCommit, base: pb.GitCommit, head: pb.GitCommit) -> TrialMerge:
    """The tree or the conflicts of taking the difference `base`→`head` back from `onto`."""
    return await merge_versions(session, version_of(head), version_of(onto), version_of(base))


async def trial_merges(session: Session, base: str, heads: Sequence[str]) -> list[TrialMerge]:
    """Merges one after the other, none of which the server hears of: what one made has the ancestors of all that went into it."""
    [start] = await session.commits(base)
    current, merged = version_of(start), [start.id]
    found: list[TrialMerge] = []
    for head in heads:
        [commit] = await session.commits(head)
        bases = await _best_bases(session, commit.id, *merged)
        if [one.id for one in bases] == [commit.id]:
            found.append(TrialMerge(current.tree))  # it is contained already
            continue
        found.append(await _merge_from(session, bases, current, version_of(commit)))
        if found[-1].tree_id is not None:
            current = Version(found[-1].tree_id, None)
            merged.append(commit.id)
    return found


async def _merge_from(session: Session, bases: Sequence[pb.GitCommit], ours: Version, theirs: Version) -> TrialMerge:
    plain = version_of(bases[0]) if bases else Version(EMPTY_TREE, None)
    base = await _merged_bases(session, bases) if len(bases) > 1 else plain
    return await merge_versions(session, base, ours, theirs, moves_from=plain)


async def merge_versions(
    session: Session, base: Version, ours: Version, theirs: Version, *, moves_from: Version | None = None
) -> TrialMerge:
    """Merge two trees that come from `base`; moves are looked for since `moves_from`, when that is another tree."""
    since = moves_from or base
    await _have_trees(session, base, ours, theirs, since)
    for start in {base, since}:
        await _have_blobs(session, start, ours, theirs)

    def work(repository: pygit2.Repository) -> TrialMerge:
        merging, moving, one, two = (_tree(repository, version.tree) for version in (base, since, ours, theirs))
        index = repository.merge_trees(merging, one, two, flags=NO_RENAMES)
        return finished(repository, index, moving, one, two)

    return await session.run(work)


async def rebase(session: Session, head: pb.GitCommit, onto: pb.GitCommit, committer: Stamp) -> Rebase:
    """What replaying the commits of `head` that `onto` lacks on `onto` makes."""
    missing = await list_commits(session, head.id, f"^{onto.id}", reverse=True)
    # `head` itself comes last: without this, a list that breaks off would have commits dropped without a word.
    complete = missing[-1].id == head.id if missing else await is_ancestor(session, head.id, onto.id)
    if not complete:
        raise GitalyError(session.operation, grpc.StatusCode.OK, "the list of commits is cut short")
    if any(len(commit.parent_ids) > 1 for commit in missing):
        return Rebase(None)
    made: list[NewCommit] = []
    current, tip = version_of(onto), onto.id
    start = onto.tree_id
    for commit in missing:
        if list(commit.parent_ids) == [tip]:
            current, tip = version_of(commit), commit.id
            start = commit.tree_id
            continue
        before = version_of((await session.commits(*commit.parent_ids))[0]) if commit.parent_ids else Version(EMPTY_TREE, None)
        tried = await merge_versions(session, before, current, version_of(commit))
        if tried.tree_id is None:
            return Rebase(None, conflicts=tried.conflicts)
        if tried.tree_id == current.tree and commit.tree_id != before.tree:
            continue
        message = message_of(session.operation, commit)
        made.append(NewCommit(tried.tree_id, (tip,), stamp_from(commit.author), committer, message))
        current, tip = Version(tried.tree_id, None), made[-1].sha
    return Rebase(tip, tuple(made), start=start)


async def disagreement(
    session: Session, wanted: str, made: str, ours: pb.GitCommit, theirs: pb.GitCommit
) -> tuple[Conflict, ...]:
    """Where a server's merge of two commits (`made`) differs from ours (the tree `wanted`): a conflict at each such path."""
    [other] = await session.trees(made)
    bases = await _best_bases(session, ours.id, theirs.id)
    base = version_of(bases[0]) if bases else Version(EMPTY_TREE, None)
    await _have_trees(session, base, version_of(ours), version_of(theirs))

    def work(repository: pygit2.Repository) -> tuple[Conflict, ...]:
        sides = [_tree(repository, tree) for tree in (base.tree, ours.tree_id, theirs.tree_id)]
        deltas = _tree(repository, wanted).diff_to_tree(_tree(repository, other.tree_id)).deltas
        paths = {file.raw_path for delta in deltas for file in (delta.old_file, delta.new_file)}
        return tuple(conflict_at(path, sides) for path in sorted(paths))

    return await session.run(work)


async def _best_bases(remote: Remote, one: str, *others: str) -> list[pb.GitCommit]:
    """The best common ancestors, the youngest first: those that no other common ancestor descends from."""
    found = await merge_base(remote, one, *others)
    if found is None:
        return []
    if found == one or others == (found,):  # of several others, one may have an ancestor in common that `found` does not have
        return await remote.commits(found)
    ours, theirs = await asyncio.gather(list_commits(remote, one, f"^{found}"), list_commits(remote, *others, f"^{found}"))
    common = {commit.id: commit for commit in ours} if theirs else {}
    common = {commit.id: commit for commit in theirs if commit.id in common}
    passed = {parent for commit in common.values() for parent in commit.parent_ids}
    bases = await remote.commits(found) + [commit for one, commit in common.items() if one not in passed]
    return sorted(bases, key=lambda commit: -commit.committer.date.seconds)


async def _merged_bases(session: Session, bases: Sequence[pb.GitCommit]) -> Version:
    """The tree of several merge bases merged, the oldest first; what clashes between them stays as the library marks it."""
    *younger, oldest = bases
    merged, heads = version_of(oldest), [oldest.id]
    for commit in reversed(younger):
        below = await _best_bases(session, *heads, commit.id)
        base = Version(EMPTY_TREE, None)
        if below:
            base = await _merged_bases(session, below) if len(below) > 1 else version_of(below[0])
        merged = await _merge_as_base(session, base, merged, version_of(commit))
        heads.append(commit.id)
    return merged


async def _merge_as_base(session: Session, base: Version, ours: Version, theirs: Version) -> Version:
    await _have_trees(session, base, ours, theirs)
    await _have_blobs(session, base, ours, theirs)

    def work(repository: pygit2.Repository) -> str:
        merging, one, two = (_tree(repository, version.tree) for version in (base, ours, theirs))
        index = repository.merge_trees(merging, one, two, flags=MergeFlag.VIRTUAL_BASE)
        conflicts = index.conflicts
        if conflicts is not None:
            # A path that no content settles counts as one that the base does not have, as in the library's own merge.
            for sides in list(conflicts):
                del conflicts[next(side.path for side in sides if side is not None)]
        return str(write_merged(repository, index, one))

    return Version(await session.run(work), None)


async def _have_trees(session: Session, *versions: Version) -> None:
    for version in versions:
        if version.commit is not None:
            await session.fetch_tree(pb.GitCommit(id=version.commit, tree_id=version.tree))
        elif version.tree == EMPTY_TREE:
            await session.fetch_tree(pb.GitCommit(tree_id=EMPTY_TREE))


async def _have_blobs(session: Session, base: Version, ours: Version, theirs: Version) -> None:
    def work(repository: pygit2.Repository) -> Needs:
        trees = (_tree(repository, version.tree) for version in (base, ours, theirs))
        return to_merge(*trees, everything=session.thorough)

    await session.fetch_blobs(placed(await session.run(work), {Side.OLD: base, Side.NEW: ours, Side.OTHER: theirs}))


def placed(needs: Needs, versions: dict[Side, Version]) -> dict[str, Place | None]:
    """Blobs with the commit and path that the server finds them by; None for one that only a computed tree has."""
    found: dict[str, Place | None] = {}
    for blob, (side, path) in needs.items():
        commit = versions[side].commit
        found[blob] = None if commit is None else (commit, path)
    return found


async def _unrelated(remote: Remote, one: str, others: Sequence[str]) -> bool:
    """Whether histories have no commit in common: then a walk of one without the others reaches its first commits."""
    walked = await list_commits(remote, one, *(f"^{other}" for other in others))
    ids = {commit.id for commit in walked}
    return one in ids and all(parent in ids for commit in walked for parent in commit.parent_ids)


def _tree(repository: pygit2.Repository, sha: str) -> pygit2.Tree:
    return repository[sha].peel(pygit2.Tree)

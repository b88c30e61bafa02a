"""Making objects beside a mirror, and the pack of what a server lacks of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import pygit2
from pygit2.enums import SortMode

NEAR_COMMITS = 64
"""How far the way from a new commit to what the server has is looked for without walking all of the server's tips."""
_SUBMODULE = 0o160000


def overlaid(generation: pygit2.Repository, scratch: Path) -> pygit2.Repository:
    """The generation's repository with new objects going to an empty folder, so that nothing unfinished gets into the mirror."""
    objects = pygit2.Odb(str(scratch))
    objects.add_disk_alternate(str(Path(str(generation.path)) / "objects"))
    generation.set_odb(objects)
    return generation


def write_pack(repository: pygit2.Repository, new: Iterable[str], known: Iterable[str], folder: Path) -> Path:
    """Write a pack, and its index beside it, of all that `new` reach and `known`, which the server has, do not."""
    builder = pygit2.PackBuilder(repository)
    builder.set_threads(1)
    for oid in missing_objects(repository, new, set(known)):
        builder.add(oid)
    builder.write(str(folder))
    return next(folder.glob("*.pack"))


def missing_objects(repository: pygit2.Repository, new: Iterable[str], known: set[str]) -> list[pygit2.Oid]:
    """The objects that `new` reach and `known` do not, but for a few that `known` have elsewhere in their trees."""
    found: dict[pygit2.Oid, None] = {}
    commits: list[pygit2.Oid] = []
    for sha in new:
        item = repository[sha]
        while isinstance(item, pygit2.Tag):
            found[item.id] = None
            item = repository[item.target]
        if isinstance(item, pygit2.Commit):
            commits.append(item.id)
        elif isinstance(item, pygit2.Tree):
            _add_tree(repository, item, [], found)
        else:
            found[item.id] = None
    for commit in _missing_commits(repository, commits, known):
        found[commit.id] = None
        _add_tree(repository, commit.tree, [parent.tree for parent in commit.parents], found)
    return list(found)


def _missing_commits(repository: pygit2.Repository, heads: Sequence[pygit2.Oid], known: set[str]) -> list[pygit2.Commit]:
    pending = list(heads)
    near: dict[pygit2.Oid, pygit2.Commit] = {}
    while pending and len(near) <= NEAR_COMMITS:
        oid = pending.pop()
        if oid not in near and str(oid) not in known:
            near[oid] = commit = repository[oid].peel(pygit2.Commit)
            pending.extend(commit.parent_ids)
    if not pending:
        return list(near.values())
    walker = repository.walk(None, SortMode.TOPOLOGICAL)
    for oid in heads:
        walker.push(oid)
    for sha in known:
        item = repository.get(sha)
        while isinstance(item, pygit2.Tag):
            item = repository.get(item.target)
        if isinstance(item, pygit2.Commit):
            walker.hide(item.id)
    return list(islice(walker, None))


def _add_tree(
    repository: pygit2.Repository, tree: pygit2.Tree, before: Sequence[pygit2.Tree], found: dict[pygit2.Oid, None]
) -> None:
    """Add a tree and what is below it, without what the trees of its parent commits have at the same place."""
    if tree.id in found or any(tree.id == old.id for old in before):
        return
    found[tree.id] = None
    olds = [{entry.raw_name: entry for entry in old} for old in before]
    for entry in tree:
        if int(entry.filemode) == _SUBMODULE:
            continue
        there = [old[entry.raw_name] for old in olds if entry.raw_name in old]
        if isinstance(entry, pygit2.Tree):
            _add_tree(repository, entry, [old for old in there if isinstance(old, pygit2.Tree)], found)
        elif all(old.id != entry.id for old in there):
            found[entry.id] = None

"""The Git port in memory: a fake for tests that behaves like the others, object names included, and forgets all when dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conman.git.adapter import (
    ChangedPath,
    Commit,
    CommitOutcome,
    FileChange,
    FileContent,
    FileDiff,
    GitError,
    GitHealth,
    ObjectMissing,
    RefUpdate,
    RepositoryExists,
    RepositoryMissing,
    Signature,
    StaleRef,
    TreeEntry,
    TrialMerge,
)
from conman.git.checks import (
    MODE_TREE,
    checked_folder,
    checked_repo,
    checked_updates,
    entry_type,
    is_ref_name,
    is_sha,
    ref_parents,
    shown,
)
from conman.git.memory_diff import changed, file_diff
from conman.git.memory_edit import edited
from conman.git.memory_export import write_files
from conman.git.memory_history import History
from conman.git.memory_merge import Merged, merge_files
from conman.git.memory_objects import Leaf, ObjectStore, RawCommit, metadata, new_commit, signature_line


@dataclass(slots=True)
class _Repository:
    store: ObjectStore = field(default_factory=ObjectStore)
    refs: dict[str, str] = field(default_factory=dict)


class MemoryGit:
    """`GitAdapter` in dictionaries, for one event loop. Each call lets others run first, as one that waits for a disk would."""

    def __init__(self) -> None:
        self._repositories: dict[str, _Repository] = {}

    def objects(self, repo: str) -> ObjectStore:
        """The objects of a repository, for tests that need some that the port can't make (tags, submodules, links)."""
        return self._repositories[repo].store

    def refs(self, repo: str) -> dict[str, str]:
        """The refs of a repository, to be changed by tests without any check."""
        return self._repositories[repo].refs

    def close(self) -> None:
        """Nothing to wait for."""

    async def repository_exists(self, repo: str) -> bool:
        """See `GitAdapter`."""
        await asyncio.sleep(0)
        return checked_repo("repository_exists", repo) in self._repositories

    async def create_repository(self, repo: str, default_branch: str) -> None:
        """See `GitAdapter`."""
        await asyncio.sleep(0)
        checked_repo("create_repository", repo)
        if not is_ref_name(f"refs/heads/{default_branch}"):
            raise GitError("create_repository", f"{default_branch!r} is not a branch name", safe_to_repeat=False)
        for other in self._repositories:
            if other == repo or other.startswith(f"{repo}/"):
                raise RepositoryExists("create_repository", repo)
            if repo.startswith(f"{other}/"):
                raise GitError("create_repository", f"{repo!r} is inside another repository", safe_to_repeat=False)
        self._repositories[repo] = _Repository()

    async def remove_repository(self, repo: str) -> None:
        """See `GitAdapter`."""
        await self._open("remove_repository", repo)
        del self._repositories[repo]

    async def resolve(self, repo: str, revision: str) -> str | None:
        """See `GitAdapter`."""
        return self._peel(await self._open("resolve", repo), revision)

    async def list_refs(self, repo: str, prefix: str) -> dict[str, str]:
        """See `GitAdapter`."""
        refs = (await self._open("list_refs", repo)).refs
        return {name: refs[name] for name in sorted(refs) if name.startswith(prefix)}

    async def update_refs(self, repo: str, updates: Sequence[RefUpdate]) -> None:
        """See `GitAdapter`."""
        self._move("update_refs", await self._open("update_refs", repo), updates)

    async def commit(self, repo: str, sha: str) -> Commit:
        """See `GitAdapter`."""
        repository = await self._open("commit", repo)
        found = self._find("commit", repository, sha)
        return metadata(found, repository.store.commit(found))

    async def log(
        self, repo: str, head: str, *, exclude: str | None = None, first_parent: bool = False, limit: int = 1000
    ) -> list[Commit]:
        """See `GitAdapter`."""
        repository = await self._open("log", repo)
        store = repository.store
        start = self._find("log", repository, head)
        without = None if exclude is None else self._find("log", repository, exclude)
        order = History(store).newest_first(start, without)
        if first_parent:
            within, order, sha = set(order), [], start
            while sha in within:
                order.append(sha)
                sha = next(iter(store.commit(sha).parents), "")
        return [metadata(sha, store.commit(sha)) for sha in order[: max(limit, 0)]]

    async def merge_base(self, repo: str, one: str, two: str) -> str | None:
        """See `GitAdapter`."""
        repository = await self._open("merge_base", repo)
        commits = [self._find("merge_base", repository, revision) for revision in (one, two)]
        return next(iter(History(repository.store).merge_bases(*commits)), None)

    async def is_ancestor(self, repo: str, ancestor: str, descendant: str) -> bool:
        """See `GitAdapter`."""
        repository = await self._open("is_ancestor", repo)
        younger = self._find("is_ancestor", repository, descendant)
        return self._find("is_ancestor", repository, ancestor) in History(repository.store).ancestors(younger)

    async def list_tree(self, repo: str, commit: str, path: str = "", *, recursive: bool = False) -> list[TreeEntry]:
        """See `GitAdapter`."""
        repository = await self._open("list_tree", repo)
        store = repository.store
        folder = self._at("list_tree", repository, commit, path)
        if folder is None or folder.mode != MODE_TREE:
            raise ObjectMissing("list_tree", f"folder {path!r}")
        prefix = f"{path}/".encode() if path else b""
        below = store.files(folder.sha) if recursive else dict(store.entries(folder.sha))
        return [_entry(store, shown(prefix + name), below[name]) for name in sorted(below)]

    async def entry(self, repo: str, commit: str, path: str) -> TreeEntry | None:
        """See `GitAdapter`."""
        repository = await self._open("entry", repo)
        found = self._at("entry", repository, commit, path)
        return None if found is None else _entry(repository.store, path, found)

    async def read_file(self, repo: str, commit: str, path: str) -> FileContent | None:
        """See `GitAdapter`."""
        repository = await self._open("read_file", repo)
        found = self._at("read_file", repository, commit, path)
        data = None if found is None else repository.store.read("blob", found.sha)
        return None if found is None or data is None else FileContent(path, found.sha, found.mode, data)

    async def read_blob(self, repo: str, blob_id: str) -> bytes:
        """See `GitAdapter`."""
        data = (await self._open("read_blob", repo)).store.read("blob", blob_id)
        if data is None:
            raise ObjectMissing("read_blob", f"blob {blob_id!r}")
        return data

    async def changed_paths(self, repo: str, base: str, head: str, *, renames: bool = False) -> list[ChangedPath]:
        """See `GitAdapter`."""
        repository = await self._open("changed_paths", repo)
        old, new = (self._files("changed_paths", repository, revision) for revision in (base, head))
        return [change for _, _, change in changed(repository.store, old, new, renames=renames)]

    async def diff(
        self,
        repo: str,
        base: str,
        head: str,
        *,
        paths: Sequence[str] | None = None,
        renames: bool = True,
        context: int = 3,
    ) -> list[FileDiff]:
        """See `GitAdapter`."""
        repository = await self._open("diff", repo)
        old, new = (self._files("diff", repository, revision) for revision in (base, head))
        wanted = None if paths is None else {path.encode("utf-8", "surrogateescape") for path in paths}
        return [
            file_diff(repository.store, path, old_path, change, context)
            for path, old_path, change in changed(repository.store, old, new, renames=renames)
            if wanted is None or not wanted.isdisjoint((path, old_path))
        ]

    async def commit_files(
        self,
        repo: str,
        *,
        ref: str,
        expected_old: str | None,
        parent: str | None,
        changes: Sequence[FileChange],
        author: Signature,
        message: str,
        committer: Signature | None = None,
    ) -> str:
        """See `GitAdapter`."""
        operation = "commit_files"
        repository = await self._open(operation, repo)
        base = None if parent is None else self._find(operation, repository, parent)
        files = {} if base is None else self._files(operation, repository, base)
        tree = repository.store.put_files(edited(operation, repository.store, files, changes))
        parents = () if base is None else (base,)
        made = new_commit(operation, tree, parents, author, committer or author, message)
        return self._place(operation, repository, ref, expected_old, repository.store.put_commit(made))

    async def commit_tree_of(
        self,
        repo: str,
        *,
        ref: str,
        expected_old: str | None,
        tree_of: str,
        parents: Sequence[str],
        author: Signature,
        message: str,
        committer: Signature | None = None,
    ) -> str:
        """See `GitAdapter`."""
        operation = "commit_tree_of"
        repository = await self._open(operation, repo)
        tree = repository.store.commit(self._find(operation, repository, tree_of)).tree
        found = tuple(self._find(operation, repository, parent) for parent in parents)
        made = new_commit(operation, tree, found, author, committer or author, message)
        return self._place(operation, repository, ref, expected_old, repository.store.put_commit(made))

    async def trial_merge(self, repo: str, ours: str, theirs: str) -> TrialMerge:
        """See `GitAdapter`."""
        repository = await self._open("trial_merge", repo)
        merged = self._merged("trial_merge", repository, ours, theirs)
        if merged.conflicts:
            return TrialMerge(None, merged.conflicts)
        return TrialMerge(repository.store.put_files(merged.files))

    async def trial_merges(self, repo: str, base: str, heads: Sequence[str]) -> list[TrialMerge]:
        """See `GitAdapter`."""
        operation = "trial_merges"
        repository = await self._open(operation, repo)
        store = repository.store
        current = self._find(operation, repository, base)
        found: list[TrialMerge] = []
        for head in heads:
            commit = self._find(operation, repository, head)
            if commit in History(store).ancestors(current):
                found.append(TrialMerge(store.commit(current).tree))
                continue
            merged = self._merged(operation, repository, current, commit)
            if merged.conflicts:
                found.append(TrialMerge(None, merged.conflicts))
                continue
            tree, who = store.put_files(merged.files), store.commit(commit).committer
            found.append(TrialMerge(tree))
            current = store.put_commit(RawCommit(tree, (current, commit), who, who, b""))
        return found

    async def merge(
        self,
        repo: str,
        *,
        ref: str,
        expected_old: str | None,
        ours: str,
        theirs: str,
        author: Signature,
        message: str,
    ) -> CommitOutcome:
        """See `GitAdapter`."""
        repository = await self._open("merge", repo)
        store = repository.store
        parents = (self._find("merge", repository, ours), self._find("merge", repository, theirs))
        if parents[1] in History(store).ancestors(parents[0]):
            return CommitOutcome(self._place("merge", repository, ref, expected_old, parents[0]))
        merged = self._merged("merge", repository, ours, theirs)
        if merged.conflicts:
            return CommitOutcome(None, merged.conflicts)
        made = new_commit("merge", store.put_files(merged.files), parents, author, author, message)
        return CommitOutcome(self._place("merge", repository, ref, expected_old, store.put_commit(made)))

    async def rebase(
        self, repo: str, *, ref: str, expected_old: str | None, head: str, onto: str, committer: Signature
    ) -> CommitOutcome:
        """See `GitAdapter`."""
        repository = await self._open("rebase", repo)
        store = repository.store
        current = self._find("rebase", repository, onto)
        missing = History(store).newest_first(self._find("rebase", repository, head), current)[::-1]
        if any(len(store.commit(sha).parents) > 1 for sha in missing):
            return CommitOutcome(None)
        who = signature_line("rebase", committer)
        for sha in missing:
            raw = store.commit(sha)
            if raw.parents == (current,):
                current = sha
                continue
            before = store.commit(raw.parents[0]).tree if raw.parents else store.put_files({})
            present = store.commit(current).tree
            merged = merge_files(store, store.files(before), store.files(present), store.files(raw.tree))
            if merged.conflicts:
                return CommitOutcome(None, merged.conflicts)
            tree = store.put_files(merged.files)
            if tree != present or raw.tree == before:
                current = store.put_commit(RawCommit(tree, (current,), raw.author, who, raw.message))
        return CommitOutcome(self._place("rebase", repository, ref, expected_old, current))

    async def revert(
        self,
        repo: str,
        *,
        ref: str,
        expected_old: str | None,
        onto: str,
        base: str,
        head: str,
        author: Signature,
        message: str,
    ) -> CommitOutcome:
        """See `GitAdapter`."""
        repository = await self._open("revert", repo)
        store = repository.store
        after, present, before = (self._files("revert", repository, revision) for revision in (head, onto, base))
        merged = merge_files(store, after, present, before)
        if merged.conflicts:
            return CommitOutcome(None, merged.conflicts)
        parents = (self._find("revert", repository, onto),)
        made = new_commit("revert", store.put_files(merged.files), parents, author, author, message)
        return CommitOutcome(self._place("revert", repository, ref, expected_old, store.put_commit(made)))

    async def trial_revert(self, repo: str, onto: str, base: str, head: str) -> TrialMerge:
        """See `GitAdapter`."""
        operation = "trial_revert"
        repository = await self._open(operation, repo)
        after, present, before = (self._files(operation, repository, revision) for revision in (head, onto, base))
        merged = merge_files(repository.store, after, present, before)
        if merged.conflicts:
            return TrialMerge(None, merged.conflicts)
        return TrialMerge(repository.store.put_files(merged.files))

    async def export(self, repo: str, commit: str, destination: Path) -> int:
        """See `GitAdapter`."""
        repository = await self._open("export", repo)
        files = self._files("export", repository, commit)
        return await asyncio.to_thread(write_files, "export", repository.store, files, destination)

    async def health(self) -> GitHealth:
        """See `GitAdapter`."""
        await asyncio.sleep(0)
        return GitHealth("memory", "memory")

    async def _open(self, operation: str, repo: str) -> _Repository:
        await asyncio.sleep(0)
        found = self._repositories.get(checked_repo(operation, repo))
        if found is None:
            raise RepositoryMissing(operation, repo)
        return found

    def _peel(self, repository: _Repository, revision: str) -> str | None:
        return repository.store.peel(revision if is_sha(revision) else repository.refs.get(revision, ""))

    def _find(self, operation: str, repository: _Repository, revision: str) -> str:
        found = self._peel(repository, revision)
        if found is None:
            raise ObjectMissing(operation, f"commit {revision!r}")
        return found

    def _files(self, operation: str, repository: _Repository, revision: str):
        return repository.store.files(repository.store.commit(self._find(operation, repository, revision)).tree)

    def _at(self, operation: str, repository: _Repository, commit: str, path: str) -> Leaf | None:
        store = repository.store
        here = Leaf(MODE_TREE, store.commit(self._find(operation, repository, commit)).tree)
        for name in checked_folder(operation, path):
            if here.mode != MODE_TREE:
                return None
            found = dict(store.entries(here.sha)).get(name.encode("utf-8", "surrogateescape"))
            if found is None:
                return None
            here = found
        return here

    def _merged(self, operation: str, repository: _Repository, ours: str, theirs: str) -> Merged:
        store = repository.store
        one, two = (self._find(operation, repository, revision) for revision in (ours, theirs))
        base = History(store).base_files(one, two)
        return merge_files(store, base, store.files(store.commit(one).tree), store.files(store.commit(two).tree))

    def _place(self, operation: str, repository: _Repository, ref: str, expected_old: str | None, sha: str) -> str:
        """Move one ref to a commit that was just made; a ref that is there already is a repeat, and fine."""
        if repository.refs.get(ref) != sha or expected_old == sha:
            self._move(operation, repository, [RefUpdate(ref, expected_old, sha)])
        return sha

    def _move(self, operation: str, repository: _Repository, updates: Sequence[RefUpdate]) -> None:
        checked_updates(operation, updates)
        for update in updates:
            kind = None if update.new is None else repository.store.kind(update.new)
            if update.new is not None and kind is None:
                raise ObjectMissing(operation, f"object {update.new}")
            if update.new is not None and update.ref.startswith("refs/heads/") and kind != "commit":
                raise GitError(operation, f"{update.ref} can only hold a commit", safe_to_repeat=False)
        for update in updates:
            if repository.refs.get(update.ref) != update.old:
                raise StaleRef(operation, update.ref)
        created = [update.ref for update in updates if update.old is None and update.new is not None]
        for ref in created:
            if any(parent in created or parent in repository.refs for parent in ref_parents(ref)):
                raise GitError(operation, f"a ref is in the way of {ref}", safe_to_repeat=False)
            if any(other.startswith(f"{ref}/") for other in repository.refs):
                raise GitError(operation, f"refs below {ref} are in its way", safe_to_repeat=False)
        for update in updates:
            if update.new is None:
                repository.refs.pop(update.ref, None)
            else:
                repository.refs[update.ref] = update.new


def _entry(store: ObjectStore, path: str, leaf: Leaf) -> TreeEntry:
    data = store.read("blob", leaf.sha)
    return TreeEntry(path, entry_type(leaf.mode), leaf.mode, leaf.sha, None if data is None else len(data))

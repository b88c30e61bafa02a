"""The Git port: what Conman needs of a Git backend, in terms of shas, full ref names and bytes.

Rules that every adapter keeps (one contract suite holds them):

- `repo` is a path relative to the storage root; one that leaves the root is refused with `GitError`.
- A ref is a full name (`refs/heads/main`); a sha is 40 hex digits. Where a commit is asked for, a full ref name does too:
  good for a look, but a caller that decides on what it reads passes shas.
- Nothing that makes a commit leaves it dangling: each takes a `RefUpdate` target (`ref`, `expected_old`) and moves that ref
  to the new commit by compare-and-swap, or raises `StaleRef` and moves nothing.
- Commits are a function of their inputs: author, committer and time are given, so that a repeat of the same call makes the
  same sha. A repeat whose ref already points at that sha succeeds.
- Paths are given as `/`-separated UTF-8 text, already checked by `conman.domain.paths`; an adapter still refuses what would
  leave the tree or touch `.git`.
- Symlinks and submodules are kept as they are, never followed. A write over a symlink replaces its target; a submodule can't
  be written, moved or deleted.
- A name or a text in a repository that is not UTF-8 is shown with replacement characters; commits, merges and exports keep
  its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class GitError(Exception):
    """A Git operation failed for a reason that is no rule of the domain.

    `operation` names the call; `safe_to_repeat` says whether the same call can be made again without harm.
    """

    def __init__(self, operation: str, message: str, *, safe_to_repeat: bool) -> None:
        super().__init__(f"{operation}: {message}")
        self.operation = operation
        self.safe_to_repeat = safe_to_repeat


class StaleRef(GitError):
    """A compare-and-swap lost: a ref was not at the expected old value. Nothing moved."""

    def __init__(self, operation: str, ref: str) -> None:
        super().__init__(operation, f"{ref} is no longer where it was expected", safe_to_repeat=False)
        self.ref = ref


class RepositoryMissing(GitError):
    """There is no repository at that path."""

    def __init__(self, operation: str, repo: str) -> None:
        super().__init__(operation, f"no repository at {repo!r}", safe_to_repeat=False)


class RepositoryExists(GitError):
    """There is a repository (or something else) at that path already."""

    def __init__(self, operation: str, repo: str) -> None:
        super().__init__(operation, f"{repo!r} exists already", safe_to_repeat=False)


class ObjectMissing(GitError):
    """A sha, ref or path that the call needs does not exist in the repository."""

    def __init__(self, operation: str, what: str) -> None:
        super().__init__(operation, f"{what} does not exist", safe_to_repeat=False)


class ChangeRefused(GitError):
    """A file change that can't be applied to its parent (create over an existing path, delete of a missing one, a bad path)."""

    def __init__(self, operation: str, path: str, reason: str) -> None:
        super().__init__(operation, f"{path}: {reason}", safe_to_repeat=False)
        self.path = path
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Signature:
    """Who made a commit and when; `when` is timezone-aware and kept to the second."""

    name: str
    email: str
    when: datetime


@dataclass(frozen=True, slots=True)
class RefUpdate:
    """One compare-and-swap: `old` None means "must not exist", `new` None means "delete"."""

    ref: str
    old: str | None
    new: str | None


class EntryType(StrEnum):
    """What a tree entry is."""

    BLOB = "blob"
    TREE = "tree"
    SYMLINK = "symlink"
    SUBMODULE = "submodule"


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One entry of a tree. `size` is in bytes, None for trees and submodules."""

    path: str
    type: EntryType
    mode: int
    blob_id: str
    size: int | None


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file's bytes at a commit."""

    path: str
    blob_id: str
    mode: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit's metadata. `trailers` are the `Key: value` lines that end the message, in order."""

    sha: str
    tree_id: str
    parents: tuple[str, ...]
    author: Signature
    committer: Signature
    message: str
    trailers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Create or replace a file. `expected_blob_id`: "" = must not exist, None = do not care, else must match (`StaleFile`)."""

    path: str
    data: bytes
    expected_blob_id: str | None = None
    executable: bool | None = None
    """None keeps the present mode (or makes a plain file)."""


@dataclass(frozen=True, slots=True)
class DeleteFile:
    """Delete a file that must exist."""

    path: str
    expected_blob_id: str | None = None


@dataclass(frozen=True, slots=True)
class MoveFile:
    """Move a file that must exist to a path that must not, keeping blob and mode; `data` replaces the content when given."""

    path: str
    to: str
    data: bytes | None = None
    expected_blob_id: str | None = None


FileChange = WriteFile | DeleteFile | MoveFile


class StaleFile(GitError):
    """`expected_blob_id` does not match what is there (`actual` None: no such file). Nothing was written."""

    def __init__(self, operation: str, path: str, actual: str | None) -> None:
        super().__init__(operation, f"{path} has changed", safe_to_repeat=False)
        self.path = path
        self.actual = actual


class ChangeStatus(StrEnum):
    """How a path differs between two commits."""

    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"
    RENAMED = "renamed"
    TYPE_CHANGED = "type_changed"


@dataclass(frozen=True, slots=True)
class ChangedPath:
    """One differing path; blob ids are None on the side where the path does not exist."""

    path: str
    old_path: str | None
    status: ChangeStatus
    old_blob_id: str | None
    new_blob_id: str | None
    old_mode: int | None
    new_mode: int | None


@dataclass(frozen=True, slots=True)
class FileDiff:
    """A `ChangedPath` with its unified patch (git's own format, UTF-8 with replacement; empty for binary files)."""

    change: ChangedPath
    additions: int
    deletions: int
    binary: bool
    patch: str


class ConflictKind(StrEnum):
    """Why a path does not merge by itself."""

    CONTENT = "content"
    ADD_ADD = "add_add"
    MODIFY_DELETE = "modify_delete"
    DELETE_MODIFY = "delete_modify"
    RENAME = "rename"
    TYPE = "type"


@dataclass(frozen=True, slots=True)
class Conflict:
    """A path that does not merge, with the three versions' blob ids (None where a side has none).

    A file that one side moved and the other changed in lines that clash is reported at both paths, with kind `rename`: where it
    was, and where it went; there with the moved and the changed version side by side.
    """

    path: str
    kind: ConflictKind
    base_blob: str | None
    ours_blob: str | None
    theirs_blob: str | None


@dataclass(frozen=True, slots=True)
class TrialMerge:
    """A merge that was only tried: `tree_id` when it is clean, else the conflicts, sorted by path (bytes)."""

    tree_id: str | None
    conflicts: tuple[Conflict, ...] = field(default=())

    @property
    def clean(self) -> bool:
        """Whether the two heads merge without a conflict."""
        return not self.conflicts


@dataclass(frozen=True, slots=True)
class CommitOutcome:
    """What a merge, rebase or revert made: the `sha` that the target ref now has, or the conflicts (then nothing moved)."""

    sha: str | None
    conflicts: tuple[Conflict, ...] = field(default=())

    @property
    def clean(self) -> bool:
        """Whether it was made."""
        return self.sha is not None


@dataclass(frozen=True, slots=True)
class GitHealth:
    """What a backend that can be used says of itself; `details` are for people, in their order, and hold no secrets."""

    backend: str
    mode: str
    details: Mapping[str, str] = field(default_factory=dict)


class GitAdapter(Protocol):
    """See the module's docstring for the rules. All methods raise `GitError` or a subclass of it."""

    async def repository_exists(self, repo: str) -> bool:
        """Whether there is a repository at `repo`."""
        ...

    async def create_repository(self, repo: str, default_branch: str) -> None:
        """Make an empty bare repository (with missing parent folders). Raises `RepositoryExists`."""
        ...

    async def remove_repository(self, repo: str) -> None:
        """Remove a repository; raises `RepositoryMissing`."""
        ...

    async def resolve(self, repo: str, revision: str) -> str | None:
        """The commit sha of a full ref name or sha (annotated tags are peeled); None when there is none."""
        ...

    async def list_refs(self, repo: str, prefix: str) -> dict[str, str]:
        """Full ref name → sha that it holds (tags are not peeled) for all refs that start with `prefix`, sorted by name."""
        ...

    async def update_refs(self, repo: str, updates: Sequence[RefUpdate]) -> None:
        """Move all refs or none. A ref that already has its `new` value fails too unless `old` equals it.

        Raises `StaleRef`; `ObjectMissing` for a `new` that does not exist; `GitError` for a malformed name, a ref named twice
        and a ref that would be the folder of another.
        """
        ...

    async def commit(self, repo: str, sha: str) -> Commit:
        """Metadata of one commit. Raises `ObjectMissing`."""
        ...

    async def log(
        self,
        repo: str,
        head: str,
        *,
        exclude: str | None = None,
        first_parent: bool = False,
        limit: int = 1000,
    ) -> list[Commit]:
        """Commits reachable from `head` and not from `exclude`, newest first in topological order."""
        ...

    async def merge_base(self, repo: str, one: str, two: str) -> str | None:
        """The best common ancestor of two commits, None when they have none."""
        ...

    async def is_ancestor(self, repo: str, ancestor: str, descendant: str) -> bool:
        """Whether `descendant` contains `ancestor` (a commit contains itself)."""
        ...

    async def list_tree(self, repo: str, commit: str, path: str = "", *, recursive: bool = False) -> list[TreeEntry]:
        """Entries below a folder, sorted by path (bytes); recursive: leaves only. Raises `ObjectMissing` for no such folder."""
        ...

    async def entry(self, repo: str, commit: str, path: str) -> TreeEntry | None:
        """The entry at `path`, None when there is none; "" is the root tree."""
        ...

    async def read_file(self, repo: str, commit: str, path: str) -> FileContent | None:
        """A file's content, None when there is no blob at `path`. A symlink's content is its target."""
        ...

    async def read_blob(self, repo: str, blob_id: str) -> bytes:
        """A blob's bytes. Raises `ObjectMissing`."""
        ...

    async def changed_paths(self, repo: str, base: str, head: str, *, renames: bool = False) -> list[ChangedPath]:
        """Paths that differ between two commits, sorted by path; with `renames`, renames are detected as git does by default."""
        ...

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
        """Unified patches between two commits, sorted by path, limited to `paths` (of either side) when given."""
        ...

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
        """Apply `changes` in order to `parent`'s tree (None: an empty tree, a root commit), commit, move `ref`.

        All or none. Raises `StaleRef`, `StaleFile`, `ChangeRefused`.
        """
        ...

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
        """Commit the tree of the commit `tree_of` on top of `parents`, and move `ref` (used to squash)."""
        ...

    async def trial_merge(self, repo: str, ours: str, theirs: str) -> TrialMerge:
        """Merge two commits in memory; nothing is written that a ref reaches.

        Files that one side moved are followed, so that the other side's change lands where the file went.
        """
        ...

    async def trial_merges(self, repo: str, base: str, heads: Sequence[str]) -> list[TrialMerge]:
        """Merge `heads` onto `base` one after the other, each as `merge` would onto what those before it made.

        One that conflicts is passed over: the next is tried on what there was before it. As with `trial_merge`, nothing is
        written that a ref reaches. One trial per head, in order.
        """
        ...

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
        """Make a merge commit (first parent `ours`, never a fast-forward) and move `ref` to it; conflicts move nothing.

        `theirs` already contained in `ours`: no commit is made and `ref` moves to `ours`.
        """
        ...

    async def rebase(
        self, repo: str, *, ref: str, expected_old: str | None, head: str, onto: str, committer: Signature
    ) -> CommitOutcome:
        """Replay the commits of `head` that `onto` lacks, oldest first, on `onto`.

        Commits that become empty are dropped. A range that holds a merge commit can't be rebased: the outcome has `sha` None and
        no conflicts, and the caller merges instead. Conflicts are those of the first commit that does not apply. A commit that
        sits on `onto` already is kept as it is, and one that was empty from the start is replayed.
        """
        ...

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
        """Commit on top of `onto` the inverse of the difference `base`→`head`; what clashes with later changes conflicts."""
        ...

    async def trial_revert(self, repo: str, onto: str, base: str, head: str) -> TrialMerge:
        """What `revert` would make of the same commits: its tree, or its conflicts; nothing is written that a ref reaches."""
        ...

    async def export(self, repo: str, commit: str, destination: Path) -> int:
        """Write the commit's files below `destination`, empty or not there yet (symlinks as links, submodules as empty folders).

        Returns the number of files. Nothing is ever written outside `destination`.
        """
        ...

    async def health(self) -> GitHealth:
        """What answers, and how it is worked with. Raises `GitError` when the backend can't be used."""
        ...

"""The local adapter's ground: finding and opening repositories, and turning the library's errors into ours."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pygit2
from pygit2.enums import ConfigLevel, Option, RepositoryOpenFlag

from conman.git.adapter import GitError, ObjectMissing, RepositoryExists, RepositoryMissing
from conman.git.checks import PRIVATE_PREFIX, checked_repo, is_ref_name, is_sha

# These are the library's process-wide settings. Objects and refs are flushed to the disk before a call returns: measured
# on an ext4 disk, a commit of one file with its ref move costs 2.7 ms so (p50) against 0.7 ms without; what was
# acknowledged then survives a loss of power.
pygit2.option(Option.ENABLE_FSYNC_GITDIR, True)
# A repository below the configured root is trusted whoever owns its files (a container's volume often has another
# owner); the library runs no hooks and no programs named in a repository's settings.
pygit2.option(Option.SET_OWNER_VALIDATION, False)
# The settings of the machine or the user (diff and merge options, attributes) must not change what a call does.
for _level in (ConfigLevel.SYSTEM, ConfigLevel.GLOBAL, ConfigLevel.XDG, ConfigLevel.PROGRAMDATA):
    pygit2.option(Option.SET_SEARCH_PATH, _level, "")

TRANSLATED: dict[type[Exception], tuple[type[GitError], bool]] = {
    pygit2.NotFoundError: (ObjectMissing, False),
    pygit2.AlreadyExistsError: (GitError, False),
    pygit2.AmbiguousError: (GitError, False),
    pygit2.InvalidSpecError: (GitError, False),
    pygit2.InvalidError: (GitError, False),
    pygit2.AuthError: (GitError, False),
    pygit2.CertificateError: (GitError, False),
    # All else that the library reports: a damaged object, a failed read or write, a lock that somebody holds.
    pygit2.GitError: (GitError, True),
    # The library says KeyError for an object that is missing, and ValueError for an argument that it can't encode.
    KeyError: (ObjectMissing, False),
    ValueError: (GitError, False),
    # Disk full, no permission, too many open files: the state of the machine, which may be another one next time.
    OSError: (GitError, True),
    # A tree of another program with thousands of folders within one another.
    RecursionError: (GitError, False),
}
"""The one map from the errors of the library and the system to (our error, safe to repeat); the nearest base class counts."""


@contextmanager
def translated(operation: str) -> Iterator[None]:
    """Let only `GitError` and its subclasses leave the block, by `TRANSLATED`."""
    try:
        yield
    except GitError:
        raise
    except tuple(TRANSLATED) as error:
        kind, safe = next(TRANSLATED[base] for base in type(error).__mro__ if base in TRANSLATED)
        text = str(error) or type(error).__name__
        if kind is ObjectMissing:
            raise ObjectMissing(operation, text) from error
        raise kind(operation, text, safe_to_repeat=safe) from error


class Storage:
    """The storage root and the bare repositories below it.

    Opening costs about 0.05 ms, so each call opens its own `pygit2.Repository`: those must not be shared between threads.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def locate(self, operation: str, repo: str) -> Path:
        """The folder of `repo`, which need not exist. Raises `GitError` for a path that leaves the root."""
        checked_repo(operation, repo)
        path = self.root / repo
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise GitError(operation, f"{repo!r} leaves the storage root", safe_to_repeat=False)
        return path

    def open(self, operation: str, repo: str) -> pygit2.Repository:
        """Open for one call in one thread. Raises `RepositoryMissing`."""
        path = self.locate(operation, repo)
        if not _is_repository(path):
            raise RepositoryMissing(operation, repo)
        return pygit2.Repository(str(path), RepositoryOpenFlag.BARE | RepositoryOpenFlag.NO_SEARCH)

    def exists(self, operation: str, repo: str) -> bool:
        """Whether there is a bare repository."""
        return _is_repository(self.locate(operation, repo))

    def create(self, operation: str, repo: str, default_branch: str) -> None:
        """Make a bare repository under a private name, then rename it: a crash leaves none half-made at `repo`."""
        path = self.locate(operation, repo)
        if not is_ref_name(f"refs/heads/{default_branch}"):
            raise GitError(operation, f"{default_branch!r} is not a branch name", safe_to_repeat=False)
        if os.path.lexists(path):
            raise RepositoryExists(operation, repo)
        for parent in path.parents:
            if parent == self.root:
                break
            if _is_repository(parent):
                raise GitError(operation, f"{repo!r} is inside another repository", safe_to_repeat=False)
        making = self.root / f"{PRIVATE_PREFIX}making-{uuid.uuid4().hex}"
        try:
            pygit2.init_repository(str(making), bare=True, initial_head=default_branch)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                making.rename(path)
            except OSError as error:
                # Somebody else made it meanwhile: a folder can't be renamed over one that is not empty.
                if os.path.lexists(path):
                    raise RepositoryExists(operation, repo) from error
                raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
        for folder in (path, path.parent):
            _flush_folder(folder)

    def remove(self, operation: str, repo: str) -> None:
        """Rename away, then delete: it is gone at once, and a crash leaves only a private folder for `sweep`."""
        path = self.locate(operation, repo)
        if not _is_repository(path):
            raise RepositoryMissing(operation, repo)
        removed = self.root / f"{PRIVATE_PREFIX}removed-{uuid.uuid4().hex}"
        try:
            path.rename(removed)
        except FileNotFoundError as error:
            raise RepositoryMissing(operation, repo) from error
        _flush_folder(path.parent)
        shutil.rmtree(removed, ignore_errors=True)

    def sweep(self) -> None:
        """Delete what a crash left of removed repositories."""
        for folder in self.root.glob(f"{PRIVATE_PREFIX}removed-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def check(self, operation: str) -> None:
        """Raise `GitError` when the root can't be listed and written to."""
        if not self.root.is_dir() or not os.access(self.root, os.R_OK | os.W_OK | os.X_OK):
            raise GitError(operation, "the storage root can't be read and written", safe_to_repeat=True)


def find_commit(operation: str, repository: pygit2.Repository, revision: str) -> pygit2.Commit:
    """The commit of a sha or a full ref name, tags peeled. Raises `ObjectMissing`."""
    commit = peeled_commit(repository, revision)
    if commit is None:
        raise ObjectMissing(operation, f"commit {revision!r}")
    return commit


def peeled_commit(repository: pygit2.Repository, revision: str) -> pygit2.Commit | None:
    """The commit of a sha or a full ref name, tags peeled; None when there is none."""
    if is_sha(revision):
        found = repository.get(revision)
    elif is_ref_name(revision):
        reference = repository.references.get(revision)
        try:
            found = None if reference is None else repository.get(reference.resolve().target)
        except KeyError:
            # A symbolic ref whose target does not exist.
            return None
    else:
        return None
    while isinstance(found, pygit2.Tag):
        found = repository.get(found.target)
    return found if isinstance(found, pygit2.Commit) else None


def _is_repository(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

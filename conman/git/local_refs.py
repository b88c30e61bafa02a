"""Moving refs by compare-and-swap, one or several, safe against other threads, other processes and a sudden death.

A move takes the repository's own lock file (`flock`: the kernel frees it when its holder dies), then git's lock files of
the refs (so that the `git` program is kept out too), compares under both, and swaps in the order given. What is about to
happen is noted in the lock file, so that the next one to move refs there can tell a dead holder's leftovers from a living
one's locks: undecided, it clears the leftovers; decided, it finishes the move, so that several refs move all or none.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pygit2

from conman.git.adapter import GitError, ObjectMissing, RefUpdate, StaleRef
from conman.git.checks import checked_updates, ref_parents

LOCK_PATIENCE = 5.0
"""Seconds that a move waits for a lock that another holds (a move takes a few milliseconds) before it gives up."""
ABANDONED_AFTER = 60.0
"""Age in seconds from which a git lock file that no living Conman holds is taken to be left by a dead program."""
_NOTE = "conman-refs.lock"
_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.05
_LOCK_TAKEN = "failed to lock file"
"""How the library words its refusal to wait for a lock file; it has no error code of its own for it in Python."""
_UNDECIDED, _DECIDED = b"0", b"1"


def ref_value(repository: pygit2.Repository, ref: str) -> str | None:
    """The sha that a ref holds (not peeled), or the name that a symbolic ref points to; None when it does not exist."""
    reference = repository.references.get(ref)
    return None if reference is None else str(reference.target)


def list_refs(repository: pygit2.Repository, prefix: str) -> dict[str, str]:
    """Name → sha of the direct refs that start with `prefix`, sorted by name."""
    found = {
        reference.name: str(reference.target)
        for reference in repository.references.objects
        if isinstance(reference.target, pygit2.Oid) and reference.name.startswith(prefix)
    }
    return dict(sorted(found.items()))


def place(operation: str, repository: pygit2.Repository, ref: str, expected_old: str | None, sha: str) -> None:
    """Move one ref to a commit that was just made; a ref that is already there is a repeat, and fine. Raises `StaleRef`."""
    try:
        move_refs(operation, repository, [RefUpdate(ref, expected_old, sha)])
    except StaleRef:
        if ref_value(repository, ref) != sha:
            raise


def move_refs(operation: str, repository: pygit2.Repository, updates: Sequence[RefUpdate]) -> None:
    """Move all refs or none. Raises `StaleRef`, `ObjectMissing`, or `GitError` that is safe to repeat when a lock stays taken."""
    checked_updates(operation, updates)
    _check_targets(operation, repository, updates)
    if not updates:
        return
    deadline = time.monotonic() + LOCK_PATIENCE
    folder = Path(str(repository.path))
    with _own_lock(operation, folder, deadline) as note:
        _recover(repository, folder, note)
        pause = _FIRST_PAUSE
        while True:
            _compare(operation, repository, updates)
            _check_names(operation, repository, folder, updates)
            try:
                _swap(operation, repository, note, updates)
                return
            except pygit2.GitError as error:
                if _LOCK_TAKEN not in str(error):
                    raise
                _clear_abandoned(folder, updates)
                if time.monotonic() >= deadline:
                    raise GitError(operation, "a ref is locked by another program", safe_to_repeat=True) from error
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _check_targets(operation: str, repository: pygit2.Repository, updates: Sequence[RefUpdate]) -> None:
    for update in updates:
        if update.new is None:
            continue
        target = repository.get(update.new)
        if target is None:
            raise ObjectMissing(operation, f"object {update.new}")
        if update.ref.startswith("refs/heads/") and not isinstance(target, pygit2.Commit):
            raise GitError(operation, f"{update.ref} can only hold a commit", safe_to_repeat=False)


def _compare(operation: str, repository: pygit2.Repository, updates: Sequence[RefUpdate]) -> None:
    for update in updates:
        if ref_value(repository, update.ref) != update.old:
            raise StaleRef(operation, update.ref)


def _check_names(operation: str, repository: pygit2.Repository, folder: Path, updates: Sequence[RefUpdate]) -> None:
    """A ref and another below its name can't both exist; the library does not see that for packed refs."""
    created = [update.ref for update in updates if update.old is None and update.new is not None]
    for ref in created:
        for parent in ref_parents(ref):
            if parent in created or ref_value(repository, parent) is not None:
                raise GitError(operation, f"{parent} is in the way of {ref}", safe_to_repeat=False)
        if _has_refs_below(folder, ref):
            raise GitError(operation, f"refs below {ref} are in its way", safe_to_repeat=False)


def _has_refs_below(folder: Path, ref: str) -> bool:
    if any(not name.endswith(".lock") for _, _, names in os.walk(folder / ref) for name in names):
        return True
    try:
        return f" {ref}/".encode() in (folder / "packed-refs").read_bytes()
    except FileNotFoundError:
        return False


def _swap(operation: str, repository: pygit2.Repository, note: int, updates: Sequence[RefUpdate]) -> None:
    plan = json.dumps([(update.ref, update.old, update.new) for update in updates]).encode()
    os.pwrite(note, _UNDECIDED + plan, 0)
    decided = False
    try:
        # A transaction of several refs swaps them in no certain order, so each ref has its own; the stack closes them
        # last in, first out, and closing swaps. An error on the way closes the rest without a swap.
        with ExitStack() as held:
            for update in reversed(updates):
                transaction = held.enter_context(repository.transaction())
                transaction.lock_ref(update.ref)
                if update.new is not None:
                    transaction.set_target(update.ref, update.new)
                elif update.old is not None:
                    transaction.remove(update.ref)
            _compare(operation, repository, updates)
            os.pwrite(note, _DECIDED, 0)
            decided = True
    except BaseException:
        if decided:
            _undo(repository, updates)
        raise
    finally:
        os.ftruncate(note, 0)


def _undo(repository: pygit2.Repository, updates: Sequence[RefUpdate]) -> None:
    """Put back what was swapped before a later swap failed (a full disk); nobody else can have moved it meanwhile."""
    for update in updates:
        if update.new != update.old and ref_value(repository, update.ref) == update.new:
            _set(repository, update.ref, update.old)


def _set(repository: pygit2.Repository, ref: str, value: str | None) -> None:
    with repository.transaction() as transaction:
        transaction.lock_ref(ref)
        if value is None:
            transaction.remove(ref)
        else:
            transaction.set_target(ref, value)


@contextmanager
def _own_lock(operation: str, folder: Path, deadline: float) -> Iterator[int]:
    """Hold the repository's lock file, which also keeps the note of what its holder is about to do."""
    note = os.open(folder / _NOTE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        pause = _FIRST_PAUSE
        while True:
            try:
                fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    message = "the repository's refs are locked by another process"
                    raise GitError(operation, message, safe_to_repeat=True) from error
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        yield note
    finally:
        os.close(note)


def _recover(repository: pygit2.Repository, folder: Path, note: int) -> None:
    """Clear up after a holder that died: its note is still there, and so may be its git locks."""
    size = os.fstat(note).st_size
    if size == 0:
        return
    text = os.pread(note, size, 0)
    try:
        plan = [RefUpdate(*update) for update in json.loads(text[1:])]
    except (ValueError, TypeError):
        # A note torn by a loss of power says nothing; its git locks are cleared when they are old enough.
        plan = []
    for lock in _lock_files(folder, plan):
        lock.unlink(missing_ok=True)
    if text[:1] == _DECIDED:
        for update in plan:
            if update.new != update.old and ref_value(repository, update.ref) == update.old:
                _set(repository, update.ref, update.new)
    os.ftruncate(note, 0)


def _clear_abandoned(folder: Path, updates: Sequence[RefUpdate]) -> None:
    for lock in _lock_files(folder, updates):
        with suppress(FileNotFoundError):
            if time.time() - lock.stat().st_mtime > ABANDONED_AFTER:
                lock.unlink()


def _lock_files(folder: Path, updates: Sequence[RefUpdate]) -> list[Path]:
    locks = [folder / f"{update.ref}.lock" for update in updates]
    if any(update.new is None for update in updates):
        locks.append(folder / "packed-refs.lock")
    return locks

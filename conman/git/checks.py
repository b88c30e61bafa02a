"""What every Git adapter checks and computes alike, without a backend: paths, ref names, signatures, trailers, conflict kinds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta

from conman.domain.filenames import GIT_MODULES, NEVER_FOLDERS, git_file
from conman.git.adapter import ChangeRefused, ConflictKind, EntryType, GitError, RefUpdate, Signature

MODE_FILE = 0o100644
MODE_EXECUTABLE = 0o100755
MODE_SYMLINK = 0o120000
MODE_SUBMODULE = 0o160000
MODE_TREE = 0o040000

PRIVATE_PREFIX = ".conman-"
"""Folders of the storage root with this prefix are an adapter's own: half-made and removed repositories."""

MAX_PATH_BYTES = 4095
"""Linux's PATH_MAX without the NUL at the end: a longer path can't be checked out."""
MAX_NAME_BYTES = 255
"""Linux's NAME_MAX, for one segment of a path."""
MAX_PATH_SEGMENTS = 256
"""Folders within folders are walked by functions that call themselves, so their depth is bounded."""

_SHA = re.compile(r"[0-9a-f]{40}")
_REF_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_TRAILER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*):[ \t]*(.*)")
# HFS+ ignores these code points in names, so that ".g\u200cit" opens ".git" there; git's fsck refuses them too.
_HFS_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
_SIGNATURE_CRUD = re.compile(r"[\x00-\x1f<>]")
# Git strips these from both ends of a name or an email when it writes a signature.
_SIGNATURE_EDGE = "".join(map(chr, range(33))) + ".,:;<>\"\\'"


def is_sha(text: str) -> bool:
    """Whether `text` is a full object name."""
    return _SHA.fullmatch(text) is not None


def is_ref_name(name: str) -> bool:
    """Whether `name` is a full ref name below `refs/` that git accepts (the rules of `git check-ref-format`)."""
    if not name.startswith("refs/") or name.endswith(("/", ".")) or _REF_FORBIDDEN.search(name):
        return False
    if not _is_utf8(name):
        return False
    return not any(part.startswith(".") or part.endswith(".lock") for part in name.split("/"))


def is_dot_git(name: str) -> bool:
    """Whether some file system would open `.git` for this name (case, NTFS short name, streams and trailing dots, HFS+)."""
    plain = _HFS_IGNORED.sub("", name).lower()
    for part in plain.split("\\"):
        stem = part.split(":", 1)[0].rstrip(" .")
        if stem in (".git", "git~1"):
            return True
    return False


def checked_repo(operation: str, repo: str) -> str:
    """`repo` itself; raises `GitError` when it is not a plain path below the storage root."""
    names = repo.split("/")
    plain = all(name not in ("", ".", "..") and not name.startswith(PRIVATE_PREFIX) for name in names)
    if not plain or "\0" in repo or "\\" in repo or not _is_utf8(repo):
        raise GitError(operation, f"{repo!r} is not a path below the storage root", safe_to_repeat=False)
    return repo


def path_problem(path: str) -> str | None:
    """Why a file path can't be written to a tree, None when it can."""
    if not path:
        return "is empty"
    if "\0" in path:
        return "holds a NUL"
    if not _is_utf8(path):
        return "is not UTF-8"
    if len(path.encode()) > MAX_PATH_BYTES:
        return "is too long"
    if path.count("/") >= MAX_PATH_SEGMENTS:
        return "is too deep"
    for name in path.split("/"):
        if name in ("", ".", ".."):
            return "is not a relative path in plain form"
        if len(name.encode()) > MAX_NAME_BYTES:
            return "has a segment that is too long"
        if is_dot_git(name):
            return "would touch .git"
    if any(git_file(name) in NEVER_FOLDERS for name in path.split("/")[:-1]):
        return "has a folder that git only has as a file"
    return None


def checked_path(operation: str, path: str) -> str:
    """`path` itself; raises `ChangeRefused` when it can't be written to a tree."""
    problem = path_problem(path)
    if problem is not None:
        raise ChangeRefused(operation, path, problem)
    return path


def checked_target(operation: str, path: str, mode: int) -> str:
    """The path that a file of this mode moves to; raises `ChangeRefused` when it can't be written there.

    A link can't be `.gitmodules` on any file system: git's fsck and checkout refuse the whole tree, since what a submodule's
    name and address are would be read from outside of the repository.
    """
    checked_path(operation, path)
    name = path.rpartition("/")[2]
    if mode == MODE_SYMLINK and git_file(name) == GIT_MODULES:
        raise ChangeRefused(operation, path, "can't be a link")
    return path


def checked_folder(operation: str, path: str) -> list[str]:
    """The segments of a path that is only read; raises `GitError` for one that is not relative and plain. "" has none."""
    if not path:
        return []
    names = path.split("/")
    if "\0" in path or not _is_utf8(path) or any(name in ("", ".", "..") for name in names):
        raise GitError(operation, f"{path!r} is not a relative path in plain form", safe_to_repeat=False)
    return names


def checked_updates(operation: str, updates: Sequence[RefUpdate]) -> None:
    """Raise `GitError` when a ref name or a sha is malformed, or a ref is named twice."""
    seen: set[str] = set()
    for update in updates:
        if not is_ref_name(update.ref):
            raise GitError(operation, f"{update.ref!r} is not a full ref name", safe_to_repeat=False)
        if update.ref in seen:
            raise GitError(operation, f"{update.ref} is named twice", safe_to_repeat=False)
        seen.add(update.ref)
        for sha in (update.old, update.new):
            if sha is not None and not is_sha(sha):
                raise GitError(operation, f"{sha!r} is not a sha", safe_to_repeat=False)


def ref_parents(ref: str) -> Iterator[str]:
    """The ref names that can't exist beside `ref`, since git keeps refs like files in folders: its proper prefixes."""
    names = ref.split("/")
    for length in range(2, len(names)):
        yield "/".join(names[:length])


def checked_signature(operation: str, signature: Signature) -> tuple[str, str, int, int]:
    """Name, email, seconds since the epoch, and offset from UTC in minutes, cleaned the way git cleans them.

    Raises `GitError` for an empty name or email, or a time without zone.
    """
    offset = signature.when.utcoffset()
    if offset is None:
        raise GitError(operation, "a signature's time has no time zone", safe_to_repeat=False)
    name = _SIGNATURE_CRUD.sub("", signature.name).strip(_SIGNATURE_EDGE)
    email = _SIGNATURE_CRUD.sub("", signature.email).strip(_SIGNATURE_EDGE)
    if not name or not email or not _is_utf8(name + email):
        raise GitError(operation, "a signature needs a name and an email in UTF-8", safe_to_repeat=False)
    seconds = int(signature.when.timestamp() // 1)
    if seconds < 0:
        raise GitError(operation, "a signature's time is before 1970", safe_to_repeat=False)
    return name, email, seconds, offset // timedelta(minutes=1)


def checked_message(operation: str, message: str) -> bytes:
    """The message's bytes; raises `GitError` for NUL or what is not UTF-8."""
    if "\0" in message or not _is_utf8(message):
        raise GitError(operation, "a commit message holds NUL or is not UTF-8", safe_to_repeat=False)
    return message.encode()


def trailers(message: str) -> tuple[tuple[str, str], ...]:
    """The `Key: value` lines of the last paragraph (never of the title), in order, when it has nothing else.

    A line that starts with white space continues the one before, as in git.
    """
    paragraphs = re.split(r"\n[ \t]*\n", message.replace("\r\n", "\n").strip("\n"))
    if len(paragraphs) < 2:
        return ()
    found: list[tuple[str, str]] = []
    for line in paragraphs[-1].strip("\n").split("\n"):
        if line[:1] in (" ", "\t") and found:
            key, value = found[-1]
            found[-1] = (key, f"{value} {line.strip()}".strip())
            continue
        match = _TRAILER.fullmatch(line)
        if match is None:
            return ()
        found.append((match[1], match[2].strip()))
    return tuple(found)


def conflict_kind(base: int | None, ours: int | None, theirs: int | None, *, folder: bool) -> ConflictKind:
    """Which kind of conflict a path has, from the modes of its three versions (None: that side has none here).

    | what is at the path | kind |
    |---|---|
    | a file on one side, a folder on the other (`folder`); or two sides of different type (file, symlink, submodule) | `type` |
    | base, ours and theirs | `content` |
    | ours and theirs, no base | `add_add` |
    | base and ours | `modify_delete`: ours changed it, theirs deleted it (or moved it away) |
    | base and theirs | `delete_modify`: ours deleted it (or moved it away), theirs changed it |
    | one version only | `rename`: the path is the source or a target of a move that the other side does not agree with |
    """
    if folder or (ours is not None and theirs is not None and ours & 0o170000 != theirs & 0o170000):
        return ConflictKind.TYPE
    if ours is not None and theirs is not None:
        return ConflictKind.CONTENT if base is not None else ConflictKind.ADD_ADD
    if base is not None and ours is not None:
        return ConflictKind.MODIFY_DELETE
    if base is not None and theirs is not None:
        return ConflictKind.DELETE_MODIFY
    return ConflictKind.RENAME


def entry_type(mode: int) -> EntryType:
    """What a tree's entry of this mode is."""
    if mode == MODE_TREE:
        return EntryType.TREE
    if mode == MODE_SYMLINK:
        return EntryType.SYMLINK
    return EntryType.SUBMODULE if mode == MODE_SUBMODULE else EntryType.BLOB


def shown(name: bytes) -> str:
    """A name or a text from a repository as text; what is not UTF-8 becomes replacement characters."""
    return name.decode("utf-8", "replace")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

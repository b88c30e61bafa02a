"""Which paths a user may name, and which of them are blocked (`spec.md` 7).

A path goes through two steps: `normalise_path` makes one spelling of it or refuses it, then `check_blocked`
compares that spelling with the app's `blocked_paths`.

Decisions that the specification leaves open:

- `./` and doubled slashes are folded away (`a//./b` is `a/b`), so that blocked globs see one spelling; a
  trailing slash is a folder's and is refused where a file is meant.
- Names are put into Unicode's NFC, so that a name typed on a Mac and the same name typed elsewhere are one
  file. A name that Git already holds in another form is listed, and can't be addressed.
- Every `%` with two hex digits (or `%u` with four) and every HTML reference to a character is refused, whatever it
  stands for: nothing that reads the path later can decode it once more.
- Segments end neither in a dot nor in white space, hold no colon, and name no device: on Windows another file, a stream
  of another file or a device would be opened. Git refuses to check such names out there, and with them the whole
  commit. What Windows can't have in a name at all (`<`, `>`, `"`, `|`, `?`, `*`) opens nothing else, so it is allowed.
- Comparisons with `.git` and with globs ignore case, Unicode compatibility forms and invisible characters; letters that
  look like those of `.git` count as them, and so do NTFS's short names for what is blocked.
- Git's own files (`.gitignore`, `.gitattributes`, `.gitmodules`, `.mailmap`) are files like others, under these names;
  what only some file systems take for one of them is blocked.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.filenames import NEVER_FOLDERS, fold, git_file, is_device, is_dot_git, is_parent, is_short_name_of

MAX_PATH_BYTES = 4095
"""The longest path, bytes of UTF-8 (`PATH_MAX` of Linux is 4096 with the NUL at its end)."""

MAX_PATH_SEGMENTS = 256
"""The most names in a path: folders within folders are walked by functions that call themselves."""

MAX_SEGMENT_BYTES = 255
"""The longest file or folder name, bytes of UTF-8 (`NAME_MAX` of Linux)."""

DEFAULT_BLOCKED_PATHS = (".git/**", ".gitignore", ".github/**")
"""What a new app blocks (`spec.md` 6)."""

_PERCENT_ENCODED = re.compile(r"%(?:[0-9a-f]{2}|u[0-9a-f]{4})", re.IGNORECASE)
_HTML_ENCODED = re.compile(r"&(?:#[0-9]+|#x[0-9a-f]+|sol|bsol|period|nbsp|tab|newline|percnt|colon);", re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:", re.IGNORECASE)
_HOME = re.compile(r"~[a-z0-9_.-]*/", re.IGNORECASE)
_LIKE_SEPARATORS = frozenset("\u2044\u2215\u2216\u29f5\u29f8\u29f9")
_REFUSED_CATEGORIES = {
    "Cc": "control characters",
    "Cs": "characters that UTF-8 can't hold",
    "Zl": "line separators",
    "Zp": "paragraph separators",
}
_DIRECTION_MARKS = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u206a\u206b\u206c\u206d\u206e\u206f\ufeff"
)


def normalise_path(raw: str, *, folder: bool = False) -> str:
    """The one spelling of a path that a user gave: relative, NFC, without `.` or empty segments.

    `folder`: a listing is meant, so a trailing slash is folded away and the root may be named by `""`, `.` or `./`;
    the root's spelling is `""`.

    Raises `validation_error` (400) for what can't be a path here and `blocked_path` (403) for `.git` in any
    segment, in any case and in every spelling that some file system takes for it (`spec.md` 7), and for disguises of
    Git's other files. What is returned passes again, unchanged.
    """
    _check_characters(raw)
    path = unicodedata.normalize("NFC", raw)
    _check_form(path)
    named = path.split("/")
    segments = [segment for segment in named if segment not in ("", ".")]
    for segment in segments:
        _check_segment(segment)
    for segment in segments[:-1]:
        if segment in NEVER_FOLDERS:
            raise invalid("path", f"is in {segment}, which Git has as a file only")
    if folder and not segments:
        return ""
    if not segments:
        raise invalid("path", "is empty; name a file")
    if len(segments) > MAX_PATH_SEGMENTS:
        raise invalid("path", f"is more than {MAX_PATH_SEGMENTS} names deep")
    if not folder and named[-1] in ("", "."):
        raise invalid("path", "ends like a folder; name a file")
    return "/".join(segments)


def check_blocked(path: str, globs: Iterable[str]) -> None:
    """Refuse a normalised path that one of the app's `blocked_paths` matches (`spec.md` 7).

    Raises `blocked_path` (403) naming the glob.
    """
    glob = blocking_glob(path, globs)
    if glob is not None:
        raise _blocked(path, glob)


def blocking_glob(path: str, globs: Iterable[str]) -> str | None:
    """The first glob that matches a normalised path or one of the folders that it is in, if any.

    The patterns are a part of gitignore's:

    - `*` is any run of characters within a segment, `?` is one; `**` as a whole segment is any number of
      segments, also none.
    - A pattern with a slash before its end is anchored at the root (`.github/**`); one without (`.gitignore`,
      `*.pem`) matches a name at any depth. A leading slash only anchors, a trailing one is ignored.
    - What matches a folder blocks everything in it, and `folder/**` blocks the name `folder` too: a file put
      in its place would remove what is protected.
    - Case, Unicode compatibility forms and invisible characters make no difference, and a name without `*` and `?`
      matches its short name on NTFS too (`.github` matches `GITHUB~1`).
    - The root itself (`""`) is never blocked.
    """
    if not path:
        return None
    names = [fold(segment) for segment in path.split("/")]
    return next((glob for glob in globs if _blocks(glob, names)), None)


def check_glob(glob: str) -> None:
    """Refuse a pattern that `blocking_glob` would not read as its author means it.

    Raises `validation_error` (400) for an empty or over-long pattern, a negation (`!`), a character class, a
    backslash, a `.` or `..` segment, and control characters.
    """
    field = "blocked_paths"
    if not glob.strip("/"):
        raise invalid(field, "a pattern is empty")
    if len(glob.encode(errors="replace")) > MAX_PATH_BYTES:
        raise invalid(field, f"a pattern is longer than {MAX_PATH_BYTES} bytes")
    if any(unicodedata.category(character) in _REFUSED_CATEGORIES for character in glob):
        raise invalid(field, "a pattern has control characters")
    if glob.startswith("!"):
        raise invalid(field, f"{glob!r}: nothing can be excepted from blocking; leave out the `!`")
    if any(character in glob for character in "[]\\"):
        raise invalid(field, f"{glob!r}: only `*`, `?` and `**` have a meaning; write the names out")
    if any(segment in (".", "..") for segment in glob.split("/")):
        raise invalid(field, f"{glob!r}: a pattern has no `.` or `..` segments")


def _check_characters(raw: str) -> None:
    """Refuse characters that have no place in a name. Raises `validation_error`."""
    if "\0" in raw:
        raise invalid("path", "has a NUL character")
    for character in raw:
        category = unicodedata.category(character)
        if category in _REFUSED_CATEGORIES:
            raise invalid("path", f"has {_REFUSED_CATEGORIES[category]} (U+{ord(character):04X})")
        if character in _DIRECTION_MARKS and not _git_within(raw):
            raise invalid("path", f"has a mark that hides how the name reads (U+{ord(character):04X})")


def _check_form(path: str) -> None:
    """Refuse what is absolute, encoded, over-long or written for another system. Raises `validation_error`."""
    if len(path.encode()) > MAX_PATH_BYTES:
        raise invalid("path", f"is longer than {MAX_PATH_BYTES} bytes")
    if "\\" in path:
        raise invalid("path", "has a backslash; separate folders by `/`")
    if path.startswith("/"):
        raise invalid("path", "is absolute; leave out the leading `/`")
    if _DRIVE.match(path):
        raise invalid("path", "starts with a drive letter; paths are relative to the repository")
    if path == "~" or _HOME.match(path):
        raise invalid("path", "starts at a home folder; paths are relative to the repository")
    if _PERCENT_ENCODED.search(path):
        raise invalid("path", "is percent-encoded; give the name itself")
    if _HTML_ENCODED.search(path):
        raise invalid("path", "has an HTML reference to a character; give the name itself")
    plain = unicodedata.normalize("NFKC", path)
    if "\\" in plain or plain.count("/") != path.count("/") or _PERCENT_ENCODED.search(plain):
        raise invalid("path", "has a character that some systems take for a separator or for `%`")
    if not _LIKE_SEPARATORS.isdisjoint(path):
        raise invalid("path", "has a character that looks like a separator")
    if any(is_parent(segment) for segment in path.split("/")):
        raise invalid("path", "has a `..` segment; name the file from the root of the repository")


def _check_segment(segment: str) -> None:
    """Refuse one file or folder name. Raises `blocked_path` for `.git`, `validation_error` for the rest."""
    if is_dot_git(segment):
        raise _blocked(segment, ".git")
    opened = git_file(segment)
    if opened not in (None, segment):
        raise _blocked(segment, opened)
    if len(segment.encode()) > MAX_SEGMENT_BYTES:
        raise invalid("path", f"has a name longer than {MAX_SEGMENT_BYTES} bytes")
    if segment.endswith(".") or segment[-1].isspace():
        raise invalid("path", f"has a name that ends in a dot or white space: {segment!r}")
    if ":" in segment:
        raise invalid("path", f"has a name that Windows takes for a stream of another file: {segment!r}")
    if is_device(segment):
        raise invalid("path", f"has a name for which Windows opens a device: {segment!r}")
    if not fold(segment).strip("."):
        raise invalid("path", f"has a name in which no more than dots can be seen: {segment!r}")


def _git_within(raw: str) -> bool:
    return any(is_dot_git(segment) or git_file(segment) is not None for segment in raw.split("/"))


def _blocked(path: str, glob: str) -> DomainError:
    return DomainError(
        ErrorCode.BLOCKED_PATH,
        f"{path}: this path is blocked by `{glob}`; change another file.",
        {"path": path, "glob": glob},
    )


def _blocks(glob: str, names: Sequence[str]) -> bool:
    """Whether the glob matches the folded names, or a leading part of them."""
    parts = [fold(part) for part in glob.strip("/").split("/") if part]
    if not parts:
        return False
    anchored = "/" in glob.rstrip("/")
    if not anchored:
        return any(_matches_name(parts[0], name) for name in names)
    while len(parts) > 1 and parts[-1] == "**":
        parts.pop()
    return _matches_start(parts, names)


def _matches_start(parts: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the parts of an anchored glob match the first names, one or more of them.

    Time is the product of both lengths, whatever the pattern: `reached` holds how many parts may be matched
    by the names so far.
    """
    reached = _skip_stars({0}, parts)
    for name in names:
        following: set[int] = set()
        for done in sorted(reached):
            if done < len(parts) and parts[done] == "**":
                following.add(done)
            elif done < len(parts) and _matches_name(parts[done], name):
                following.add(done + 1)
        reached = _skip_stars(following, parts)
        if len(parts) in reached:
            return True
    return False


def _skip_stars(reached: set[int], parts: Sequence[str]) -> set[int]:
    """`**` may match no segment: add the counts that follow from that."""
    for done, part in enumerate(parts):
        if part == "**" and done in reached:
            reached.add(done + 1)
    return reached


def _matches_name(pattern: str, name: str) -> bool:
    """Whether a pattern without slashes matches a whole name; time is the product of both lengths at worst."""
    if is_short_name_of(name, pattern):
        return True
    at = place = 0
    star = resume = -1
    while place < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, resume = at, place
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", name[place]):
            at += 1
            place += 1
        elif star >= 0:
            resume += 1
            at, place = star + 1, resume
        else:
            return False
    return all(character == "*" for character in pattern[at:])

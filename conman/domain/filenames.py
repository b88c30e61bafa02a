"""What a file system, or a reader, may take a file name for (`spec.md` 7).

One name of a path (a segment) is judged here, apart from the path that it stands in:

- HFS+, APFS and folders of ext4 with `casefold` open a name whatever its case, and skip characters that can't be seen.
- NTFS opens a name without the dots and white space at its end, takes what follows a colon for a stream of the
  file before it, and has a second, short name for every long one (`GITHUB~1` for `.github`).
- Windows opens a device for some names, whatever folder and extension they are given (`aux.json`).
- A person takes letters of other scripts for those that they look like.
"""

from __future__ import annotations

import re
import unicodedata

GIT_ATTRIBUTES = ".gitattributes"
GIT_MODULES = ".gitmodules"
GIT_FILES = (GIT_ATTRIBUTES, ".gitignore", GIT_MODULES, ".mailmap")
"""Files by which a repository steers Git itself."""

NEVER_FOLDERS = (GIT_ATTRIBUTES, GIT_MODULES)
"""Those that git's fsck refuses as folders, and with them the whole commit."""

_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Unicode's Default_Ignorable_Code_Point, which `unicodedata` does not have."""

_DOT_GIT = re.compile(r"(?:\.git|git~[0-9]+)[.\s]*(?::.*)?", re.DOTALL)
_DOTS = dict.fromkeys("\u0701\u0702\u3002\ua4f8\ua60e\U00010a50\U0001d16d", ".")
_LOOKS_LIKE = str.maketrans(
    {
        **_DOTS,
        **dict.fromkeys("\u0660\u06f0", "."),
        **dict.fromkeys("\u018d\u0261\u0262\u050d\u0581\u13c0\u13f3\u1d83\ua4d6", "g"),
        **dict.fromkeys("\u0131\u0269\u026a\u03b9\u0456\u04cf\u13a5\u2373\ua4f2\ua647\U000118c3\U0001d6a4", "i"),
        **dict.fromkeys("\u03c4\u0442\u13a2\u1d1b\u22a4\u27d9\u2ca7\ua4d4\U0001f768", "t"),
        "\u0307": None,
    }
)
"""Folded characters that Unicode's list of confusables (UTS 39) gives for those of `.git`, and the dot of a Turkish `I`."""

_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[1-9]|lpt[1-9]|conin\$|conout\$)\s*(?:[.:].*)?", re.DOTALL)
_SHORT = re.compile(r"(?P<base>[^.~]*)~(?P<number>[1-9][0-9]*)(?:\.(?P<extension>[^.]{1,3}))?")
_NEEDS_NO_SHORT = re.compile(r"[^. ]{1,8}(?:\.[^. ]{1,3})?")
_HASHED_SHORT_STARTS = {".gitattributes": "gi7d29", ".gitignore": "gi250a", ".gitmodules": "gi7eba", ".mailmap": "maba30"}
"""How NTFS starts a short name once four others are taken: two letters and a checksum of the long name (from git's fsck)."""


def fold(text: str) -> str:
    """The text for comparisons: without invisible characters, in one compatibility form, without case."""
    plain = unicodedata.normalize("NFKC", _seen(text)).casefold()
    return _seen(unicodedata.normalize("NFKC", plain))


def is_dot_git(name: str) -> bool:
    """Whether some file system, or a reader, takes the name for `.git`."""
    folded = fold(name)
    return _DOT_GIT.fullmatch(folded) is not None or _DOT_GIT.fullmatch(folded.translate(_LOOKS_LIKE)) is not None


def is_parent(name: str) -> bool:
    """Whether some program, or a reader, takes the name for `..` (what follows a semicolon is a parameter to web servers)."""
    return fold(name).translate(str.maketrans(_DOTS)).partition(";")[0].rstrip() == ".."


def is_device(name: str) -> bool:
    """Whether Windows opens a device for the name: `CON`, `nul.json`, `COM\u00b9`.

    The names are those of Microsoft's "Naming Files, Paths, and Namespaces", which git refuses to check out there.
    """
    return _DEVICE.fullmatch(fold(name)) is not None


def git_file(name: str) -> str | None:
    """Which of `GIT_FILES` some file system opens for the name, None for none. A name other than that is a disguise."""
    opened = fold(name).partition(":")[0].rstrip(". ")
    return next((file for file in GIT_FILES if opened == file or _is_short_for_git_file(opened, file)), None)


def is_short_name_of(name: str, long: str) -> bool:
    """Whether a folded name is the short name that NTFS gives to the folded name `long` (not the checksum form)."""
    match = _SHORT.fullmatch(name)
    if match is None or _NEEDS_NO_SHORT.fullmatch(long):
        return False
    base, dot, extension = long.lstrip(".").replace(" ", "").rpartition(".")
    if not dot:
        base, extension = extension, ""
    base = base.replace(".", "")
    kept = min(len(base), 7 - len(match["number"]))
    return match["base"] == base[:kept] and (match["extension"] or "") == extension[:3]


def _is_short_for_git_file(name: str, file: str) -> bool:
    if is_short_name_of(name, file):
        return True
    base, tilde, number = name.partition("~")
    hashed = _HASHED_SHORT_STARTS[file].startswith(base) and len(name) == 8
    return hashed and tilde == "~" and number.isdecimal() and not number.startswith("0")


def _seen(text: str) -> str:
    return "".join(c for c in _IGNORABLE.sub("", text) if unicodedata.category(c) != "Cf")

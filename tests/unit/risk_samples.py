"""Two versions of a repository for the rules, as a changeset leaves them."""

from __future__ import annotations

from collections.abc import Mapping

from conman.domain.risk_rules_facts import CanonicalEnvironment, ChangedFile, Facts, OverrideFact

Files = Mapping[str, str | bytes]


def data(text: str | bytes | None) -> bytes | None:
    return text.encode() if isinstance(text, str) else text


def new_lines(old: bytes | None, new: bytes | None) -> frozenset[int]:
    """The lines of the new version that the old one has nowhere: enough for samples whose lines differ."""
    known = frozenset((old or b"").split(b"\n"))
    return frozenset(number for number, line in enumerate((new or b"").split(b"\n"), start=1) if line not in known)


def changed(path: str, old: str | bytes | None, new: str | bytes | None, old_path: str | None = None) -> ChangedFile:
    before, after = data(old), data(new)
    return ChangedFile(path, before, after, old_path=old_path, gone=new is None, added=new_lines(before, after))


def facts(
    base: Files,
    head: Files,
    *,
    overrides: tuple[OverrideFact, ...] = (),
    canonical: CanonicalEnvironment | None = None,
    moved: Mapping[str, str] | None = None,
) -> Facts:
    """What differs between two repositories; `moved` is new path → old path."""
    moved = moved or {}
    paths = [path for path in sorted({*base, *head}) if path not in moved.values() and base.get(path) != head.get(path)]
    files = tuple(changed(path, base.get(moved.get(path, path)), head.get(path), moved.get(path)) for path in paths)
    others = {path: data(text) or b"" for path, text in head.items() if path not in paths}
    return Facts(files, others, overrides, canonical)

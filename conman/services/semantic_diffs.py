"""The semantic diff of two commits (`spec.md` 8): reads the files that differ, and compares them off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conman.domain.key_merge import format_of
from conman.domain.semantic_diff import SemanticDiff, change_record, summarised
from conman.domain.semantic_diff_files import FilePair, Finding, Type, Version, compare
from conman.git.adapter import ChangedPath, EntryType, GitAdapter
from conman.git.checks import MODE_EXECUTABLE, entry_type
from conman.services.diffs import Sides
from conman.services.kept import Kept

MOST_COMPARED_BYTES = 32 * 1024 * 1024
"""Of JSON, YAML and TOML files that one diff reads in both commits together; files behind that are told as changed only."""
MOST_KEPT_BYTES = 64 * 1024 * 1024
"""What the kept answers weigh, by what they hold of their files."""
FILES_AT_A_TIME = 100
"""Files that are read, and then compared in one go of a thread."""
READS_AT_A_TIME = 8
"""Blobs that are asked for at once: a server answers each by itself."""

_TOO_LARGE = f"this diff has more than {MOST_COMPARED_BYTES // 1024 // 1024} MiB of settings, and this file stands behind them"
_FINDING_BYTES = 700
_FEATURE_BYTES = 80


@dataclass(frozen=True, slots=True)
class _Answer:
    findings: tuple[Finding, ...]
    size: int
    """Bytes of both versions."""


_answers: Kept[ChangedPath, _Answer] = Kept(MOST_KEPT_BYTES)
"""By the path and the two blobs: all that a file's answer depends on, in whichever repository."""


async def semantic_diff(git: GitAdapter, repo: str, sides: Sides) -> SemanticDiff:
    """What two commits differ in."""
    return await semantic_diff_of(git, repo, await git.changed_paths(repo, sides.base, sides.head, renames=True))


async def semantic_diff_of(git: GitAdapter, repo: str, changed: Sequence[ChangedPath]) -> SemanticDiff:
    """What these files differ in."""
    files: list[tuple[Finding, ...]] = []
    room = MOST_COMPARED_BYTES
    for start in range(0, len(changed), FILES_AT_A_TIME):
        found, room = await _findings(git, repo, changed[start : start + FILES_AT_A_TIME], room)
        files += found
    return await asyncio.to_thread(summarised, files)


async def semantic_page(git: GitAdapter, repo: str, sides: Sides, page: int, limit: int) -> dict[str, Any]:
    """One page of the changes, with the summary of all."""
    return semantic_record(await semantic_diff(git, repo, sides), sides.base, sides.head, page, limit)


def semantic_record(found: SemanticDiff, base: str | None, head: str, page: int, limit: int) -> dict[str, Any]:
    """One page of a semantic diff as `spec.md` 8 shows it."""
    shown = found.changes[(page - 1) * limit : page * limit]
    return {
        "data": {
            "baseSha": base,
            "headSha": head,
            "summary": found.summary(),
            "changes": [change_record(each) for each in shown],
        },
        "pagination": {"page": page, "limit": limit, "total": len(found.changes)},
    }


async def _findings(
    git: GitAdapter, repo: str, changed: Sequence[ChangedPath], room: int
) -> tuple[list[tuple[Finding, ...]], int]:
    """What each file differs in, in their order, and how many of `room` bytes are left; none from the first that has too many."""
    kept = {each: _answers.get(each) for each in changed}
    blobs = await _read(git, repo, [each for each in changed if kept[each] is None and _is_compared(each)], room)
    pairs: dict[ChangedPath, FilePair] = {}
    sizes: dict[ChangedPath, int] = {}
    for each in changed:
        answer = kept[each]
        if not _is_compared(each):
            pairs[each] = _pair(each, {})
            continue
        size = answer.size if answer is not None else _size(each, blobs)
        room = max(0, room - size) if size is not None else 0
        if not room:
            pairs[each] = _pair(each, {}, unread=_TOO_LARGE)
        elif answer is None and size is not None:
            pairs[each], sizes[each] = _pair(each, blobs), size
    made = await asyncio.to_thread(lambda: {each: compare(pair) for each, pair in pairs.items()})
    for each, size in sizes.items():
        _keep(each, _Answer(made[each], size))
    return [made[each] if each in made else _known(kept[each]) for each in changed], room


def _known(answer: _Answer | None) -> tuple[Finding, ...]:
    return answer.findings if answer is not None else ()


def _keep(changed: ChangedPath, answer: _Answer) -> None:
    features = sum(len(each.trace.features) for each in answer.findings if each.trace is not None)
    weight = answer.size + _FINDING_BYTES * (len(answer.findings) + 1) + _FEATURE_BYTES * features
    _answers.put(changed, answer, weight)


async def _read(git: GitAdapter, repo: str, changed: Sequence[ChangedPath], room: int) -> dict[str, bytes]:
    """The blobs of the first files, until they have more than `room` bytes."""
    ids = list(dict.fromkeys(one for each in changed for one in _blob_ids(each)))
    found: dict[str, bytes] = {}
    for start in range(0, len(ids), READS_AT_A_TIME):
        if room <= 0:
            break
        batch = ids[start : start + READS_AT_A_TIME]
        found |= zip(batch, await asyncio.gather(*(git.read_blob(repo, one) for one in batch)), strict=True)
        room -= sum(len(found[one]) for one in batch)
    return found


def _size(changed: ChangedPath, blobs: Mapping[str, bytes]) -> int | None:
    """How many bytes both versions have; None when they were not read."""
    ids = _blob_ids(changed)
    return sum(len(blobs[one]) for one in ids) if all(one in blobs for one in ids) else None


def _is_compared(changed: ChangedPath) -> bool:
    """Whether there is a format to compare it by, and what it is in both commits is a file."""
    modes = [mode for mode in (changed.old_mode, changed.new_mode) if mode is not None]
    named = format_of(changed.path) is not None or format_of(changed.old_path or changed.path) is not None
    return named and all(entry_type(mode) is EntryType.BLOB for mode in modes)


def _blob_ids(changed: ChangedPath) -> list[str]:
    return [one for one in (changed.old_blob_id, changed.new_blob_id) if one is not None]


def _pair(changed: ChangedPath, blobs: Mapping[str, bytes], *, unread: str | None = None) -> FilePair:
    """The file for the comparison; `unread` is why its content is not there."""

    def version(blob_id: str | None, mode: int | None) -> Version | None:
        if blob_id is None or mode is None:
            return None
        return Version(blob_id, _type(mode), blobs.get(blob_id), unread)

    return FilePair(
        changed.path,
        version(changed.old_blob_id, changed.old_mode),
        version(changed.new_blob_id, changed.new_mode),
        changed.old_path,
    )


def _type(mode: int) -> Type:
    match entry_type(mode):
        case EntryType.SYMLINK:
            return Type.SYMLINK
        case EntryType.SUBMODULE:
            return Type.SUBMODULE
        case _:
            return Type.EXECUTABLE if mode == MODE_EXECUTABLE else Type.FILE

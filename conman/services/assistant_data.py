"""What the assistant may know of a changeset: its diff, and the names of what its overrides set; no secret (`spec.md` 8)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from conman.domain.changeset import Changeset
from conman.domain.key_merge import format_of
from conman.domain.key_merge_tree import MAX_BYTES
from conman.domain.overrides import FrozenOverride, Override, frozen_of
from conman.domain.profile import Profile
from conman.domain.redaction import Redactor
from conman.domain.risk_rules_facts import (
    CanonicalEnvironment,
    ChangedFile,
    Facts,
    OverrideFact,
    read,
)
from conman.domain.risk_rules_patch import PatchLine, added_lines, hunks
from conman.domain.risk_rules_references import may_name, telling_words
from conman.domain.risk_rules_secrets import scrub
from conman.domain.risk_rules_tree import tree_secrets
from conman.domain.semantic_diff_read import Parsed
from conman.git.adapter import ChangedPath, ChangeStatus, EntryType, FileDiff, GitAdapter
from conman.git.checks import entry_type
from conman.services.diffs import Sides
from conman.services.environments import list_environments
from conman.services.override_contents import contents_of, owners_of, unseal_each
from conman.services.platform import Platform
from conman.services.profiles import PROFILES
from conman.store.database import Document

FILES_AT_A_TIME = 100
"""Files whose patches are in memory at once."""
READS_AT_A_TIME = 8
"""Blobs that are asked for at once."""
MOST_READ_BYTES = 32 * 1024 * 1024
"""What the rules read of the changed files, and as much again of the others."""
MOST_OTHER_FILES = 2_000
"""Files outside the diff that are searched for references."""
MOST_LINE = 2_000
"""A longer line is cut, characters."""
MOST_SCRUBBED_LINE = 16 * 1024
"""So much of a line is searched for what looks like a secret, characters: what is shown, and a secret that begins in it."""
MOST_NAMED = 20
"""So many of the files that were left out are named."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """The commits that a changeset's diff compares, and its overrides with what they change."""

    repo: str
    sides: Sides
    overrides: tuple[FrozenOverride, ...]
    contents: tuple[Override, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """The diff as it is sent. `lines` are the numbers that stand in it, by file; `note` says what was left out, if anything."""

    text: str
    lines: dict[str, frozenset[int]]
    note: str


async def proposal_of(platform: Platform, app: Document, document: Document, sides: Sides) -> Proposal:
    """A changeset as it is: of the present revision, or of a draft that was never submitted, the overrides of now."""
    revisions = Changeset.model_validate(document["owned"]).revisions
    kept = revisions[-1].overrides if revisions else document.get("overrides", [])
    frozen = frozen_of(kept)
    return Proposal(app["repo_path"], sides, tuple(frozen), tuple(await contents_of(platform.db, frozen)))


async def paths_of(git: GitAdapter, proposal: Proposal) -> list[ChangedPath]:
    """The files that differ, by path."""
    return await git.changed_paths(proposal.repo, proposal.sides.base, proposal.sides.head, renames=True)


async def _patches(git: GitAdapter, proposal: Proposal, changed: Sequence[ChangedPath]) -> AsyncIterator[FileDiff]:
    renames = any(each.status is ChangeStatus.RENAMED for each in changed)
    for start in range(0, len(changed), FILES_AT_A_TIME):
        paths = [each.path for each in changed[start : start + FILES_AT_A_TIME]]
        wanted = frozenset(paths)
        for row in await git.diff(proposal.repo, proposal.sides.base, proposal.sides.head, paths=paths, renames=renames):
            if row.change.path in wanted:
                yield row


# -- For the rules


async def facts_of(platform: Platform, app: Document, proposal: Proposal) -> tuple[Facts, str]:
    """What the rules look at, and a note of what they could not ("" when they could all)."""
    git = platform.git
    changed = await paths_of(git, proposal)
    files: list[ChangedFile] = []
    unread: list[str] = []
    room = MOST_READ_BYTES
    async for row in _patches(git, proposal, changed):
        old, new = await _versions(git, proposal.repo, row) if room > 0 else (None, None)
        room -= len(old or b"") + len(new or b"")
        if room <= 0 and not row.binary:
            unread.append(row.change.path)
            old = new = None
        files.append(
            ChangedFile(
                row.change.path,
                old,
                new,
                old_path=row.change.old_path,
                gone=row.change.new_blob_id is None,
                added=added_lines(row.patch),
            )
        )
    alone = Facts(tuple(files))
    searched, others, whole = await _others(git, proposal, alone)
    environment = await _canonical(platform, app)
    facts = Facts(alone.files, others, await _override_facts(platform, app, proposal), environment)
    notes = [_left_out("Too much to read: {}.", unread)] if unread else []
    if not whole:
        notes.append(f"References were looked for in the first {searched} files only.")
    return facts, " ".join(notes)


async def _versions(git: GitAdapter, repo: str, row: FileDiff) -> tuple[bytes | None, bytes | None]:
    """Both versions of a text file that is small enough to be read."""
    if row.binary:
        return None, None
    change = row.change
    sides = ((change.old_blob_id, change.old_mode), (change.new_blob_id, change.new_mode))
    old, new = [await _read(git, repo, blob_id, mode) for blob_id, mode in sides]
    return old, new


async def _read(git: GitAdapter, repo: str, blob_id: str | None, mode: int | None) -> bytes | None:
    if blob_id is None or mode is None or entry_type(mode) is not EntryType.BLOB:
        return None
    data = await git.read_blob(repo, blob_id)
    return None if len(data) > MAX_BYTES else data


async def _others(git: GitAdapter, proposal: Proposal, changed: Facts) -> tuple[int, dict[str, bytes], bool]:
    """The head's other files that may name what is gone: how many were looked at, those that may, and whether it was all."""
    telling = await asyncio.to_thread(telling_words, changed)
    if not telling:
        return 0, {}, True
    ours = frozenset(file.path for file in changed.files)
    tree = await git.list_tree(proposal.repo, proposal.sides.head, recursive=True)
    entries = [
        entry
        for entry in tree
        if entry.type is EntryType.BLOB and entry.path not in ours and format_of(entry.path) and (entry.size or 0) <= MAX_BYTES
    ]
    found: dict[str, bytes] = {}
    room, number = MOST_READ_BYTES, 0
    for number in range(0, min(len(entries), MOST_OTHER_FILES), READS_AT_A_TIME):
        some = entries[number : number + READS_AT_A_TIME]
        room -= sum(entry.size or 0 for entry in some)
        if room < 0:
            return number, found, False
        contents = await asyncio.gather(*(git.read_blob(proposal.repo, entry.blob_id) for entry in some))
        kept = await asyncio.to_thread(lambda contents=contents: [may_name(data, telling) for data in contents])
        found |= {entry.path: data for entry, data, keep in zip(some, contents, kept, strict=True) if keep}
    return MOST_OTHER_FILES, found, len(entries) <= MOST_OTHER_FILES


async def _canonical(platform: Platform, app: Document) -> CanonicalEnvironment | None:
    for environment in await list_environments(platform, app):
        if environment["_id"] == app["settings"]["canonical_env_id"]:
            profile = await platform.db[PROFILES].find_one({"_id": environment["runtime_profile_id"]})
            content = Profile.model_validate(profile["content"]) if profile is not None else None
            paths = content.migrations.repo_paths if content is not None and content.migrations is not None else []
            return CanonicalEnvironment(environment["name"], tuple(paths))
    return None


async def _override_facts(platform: Platform, app: Document, proposal: Proposal) -> tuple[OverrideFact, ...]:
    """The overrides by what they are for and the names of what they set."""
    environments = await list_environments(platform, app) if proposal.overrides else []
    canonical = [each["runtime_profile_id"] for each in environments if each["_id"] == app["settings"]["canonical_env_id"]]
    found: list[OverrideFact] = []
    for frozen in proposal.overrides:
        named = [each["name"] for each in environments if each["runtime_profile_id"] == frozen.profile_id]
        target = " and ".join(named) or "a runtime profile"
        found.append(OverrideFact(target, frozen.profile_id in canonical, tuple(sorted(frozen.keys))))
    return tuple(found)


# -- For a model


async def known_secrets(platform: Platform, app: Document, proposal: Proposal) -> Redactor:
    """What takes the app's own secrets out of a text: those of its profiles, and of the changeset's overrides.

    Raises `VaultError` when one can't be had: then nothing could promise that it is not sent.
    """
    values: list[str] = []
    owners = owners_of(proposal.overrides, proposal.contents)
    async for document in platform.db[PROFILES].find({"app_id": app["_id"], "deleted": {"$ne": True}}):
        refs = Profile.model_validate(document["content"]).secrets
        values += (await unseal_each(platform, refs, {}, document["_id"])).values() if refs else ()
    for frozen, override in zip(proposal.overrides, proposal.contents, strict=True):
        refs = {key: ref for key, ref in override.secrets.items() if ref is not None}
        values += (await unseal_each(platform, refs, owners, frozen.profile_id)).values() if refs else ()
    return Redactor(values)


async def shown_to_model(
    platform: Platform, app: Document, proposal: Proposal, secrets: Redactor, changed: Sequence[ChangedPath], most_bytes: int
) -> Shown:
    """The diff of these files with the numbers of its lines, scrubbed and cut to `most_bytes`."""
    parts = [_overrides_text(await _override_facts(platform, app, proposal), proposal, secrets)] if proposal.overrides else []
    room = most_bytes - sum(len(part.encode()) for part in parts)
    share = max(room // 4, room // max(1, len(changed)))
    lines: dict[str, frozenset[int]] = {}
    left_out: list[str] = []
    seen: dict[str, None] = {}
    async for row in _patches(platform.git, proposal, changed):
        path = row.change.path
        if room <= 0:
            break
        seen[path] = None
        old, new = await _versions(platform.git, proposal.repo, row)
        text, numbers, cut = await asyncio.to_thread(_file_text, row, old, new, secrets, min(room, share))
        if text:
            parts.append(text)
            lines[path] = numbers
            room -= len(text.encode())
        if not text or cut:
            left_out.append(f"{path} (in part)" if text else path)
    left_out += [each.path for each in changed if each.path not in seen]
    note = _left_out("For its size the assistant did not see all: {} left out.", left_out) if left_out else ""
    if not changed:
        parts.append("No file differs.")
    if note:
        parts.append(note)
    return Shown("\n\n".join(secrets.scrub_text(part) for part in parts), lines, note)


def _file_text(
    row: FileDiff, old: bytes | None, new: bytes | None, secrets: Redactor, most: int
) -> tuple[str, frozenset[int], bool]:
    """One file as it is sent, the numbers of its lines, and whether it is cut. "" when not even a line fits."""
    change = row.change
    was = f", was {json.dumps(change.old_path)}" if change.old_path is not None else ""
    kind = ", binary" if row.binary else ""
    rows = [f"File {json.dumps(change.path)} ({change.status.value}{was}{kind})"]
    size = len(rows[0].encode())
    if size > most:
        return "", frozenset(), True
    values = [*_tree_values(change.old_path or change.path, old), *_tree_values(change.path, new)]
    gone = change.new_blob_id is None
    numbers: list[int] = []
    for header, found in hunks(row.patch):
        fitting = _fitting(found, most - size)
        clean = scrub("\n".join(secrets.scrub_text(line.text)[:MOST_SCRUBBED_LINE] for line in fitting), values).split("\n")
        for number, text in [(None, header)] + [
            (line.old if gone else line.new, f"{line.sign}{text}") for line, text in zip(fitting, clean, strict=True)
        ]:
            shown = text if len(text) <= MOST_LINE else text[:MOST_LINE] + " (this line goes on)"
            shown = f"{number if number is not None else '':>6} {shown}"
            size += len(shown.encode()) + 1
            if size > most:
                return "\n".join(rows) if len(rows) > 1 else "", frozenset(numbers), True
            rows.append(shown)
            if number is not None:
                numbers.append(number)
        if len(fitting) < len(found):
            return "\n".join(rows), frozenset(numbers), True
    return "\n".join(rows), frozenset(numbers), False


def _fitting(lines: Sequence[PatchLine], room: int) -> list[PatchLine]:
    """The first lines, twice what fits, since scrubbing makes them shorter: the rest need not be searched for secrets."""
    size = 0
    for number, line in enumerate(lines):
        size += min(len(line.text), MOST_LINE)
        if size > 2 * room:
            return list(lines[: number + 1])
    return list(lines)


def _tree_values(path: str, data: bytes | None) -> list[str]:
    tree = read(path, data)
    return [secret.text for secret in tree_secrets(tree)] if isinstance(tree, Parsed) else []


def _overrides_text(facts: Iterable[OverrideFact], proposal: Proposal, secrets: Redactor) -> str:
    """The overrides by the names of what they set; of a secret its mask as well, of nothing else a value."""
    rows = ["Overrides of runtime profiles that travel with the change (names only)"]
    for fact, override in zip(facts, proposal.contents, strict=True):
        masks = {f"secrets.{key}": ref.mask for key, ref in override.secrets.items() if ref is not None}
        named = ", ".join(f"{name} = {masks[name]}" if name in masks else name for name in fact.names)
        rows.append(f"{fact.target}{' (canonical)' if fact.is_canonical else ''}: {named}")
    return "\n".join(secrets.scrub_text(row) for row in rows)


def _left_out(sentence: str, paths: Sequence[str]) -> str:
    named = ", ".join(paths[:MOST_NAMED])
    more = f" and {len(paths) - MOST_NAMED} more" if len(paths) > MOST_NAMED else ""
    return sentence.format(named + more)

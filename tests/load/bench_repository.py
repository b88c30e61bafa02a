"""A large repository for the bench, made by `git fast-import` in a few seconds."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDERS_OF = {10_000: 500, 200: 20}
"""Folders for so many files."""
CHANGES = 100
"""Branches with one change each, none of which meets another's file."""
MANY = 1_000
"""Files that the branch `many` changes."""
MERGE_EVERY = 20
"""One commit in so many on `main` merges a branch of one commit."""


@dataclass(frozen=True)
class Large:
    """A repository with `files` files on `main`, `commits` commits, and branches `many` and `change/0` to `change/99`."""

    root: Path
    name: str
    files: int
    commits: int

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.root / self.name

    def file(self, number: int) -> str:
        """The path of one file."""
        number %= self.files
        return f"entities/group{number % FOLDERS_OF[self.files]:03}/file{number:05}.json"


def content(number: int, version: int) -> bytes:
    """A settings file of about 300 bytes."""
    lines = [f'  "setting{line}": {number * line + version * (line == 3)}' for line in range(12)]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def make(root: Path, name: str, files: int, commits: int) -> Large:
    """Make the repository below `root`."""
    large = Large(root, name, files, commits)
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", large.path], check=True)
    importing = ["git", "-C", large.path, "fast-import", "--quiet", "--done"]
    with subprocess.Popen(importing, stdin=subprocess.PIPE) as program:
        assert program.stdin is not None
        program.stdin.writelines(_stream(large))
    if program.returncode:
        raise SystemExit("git fast-import failed")
    return large


def _stream(large: Large) -> Iterator[bytes]:
    yield b"feature done\n"
    yield _commit("main", 1, 0, {large.file(number): content(number, 0) for number in range(large.files)})
    made = 1
    while made < large.commits:
        tip, made = made, made + 1
        changed = made * 7919
        if made % MERGE_EVERY == 0 and made < large.commits:
            yield _commit("side", made, tip, {large.file(changed): content(changed, made)})
            yield _commit("main", made + 1, tip, {large.file(changed): content(changed, made)}, merged=made)
            made += 1
        else:
            yield _commit("main", made, tip, {large.file(changed): content(changed, made)})
    for number in range(CHANGES):
        changed = {large.file(number * 2 + 1): content(number, -number - 1)}
        yield _commit(f"change/{number}", made + 1 + number, made, changed)
    many = {large.file(number): content(number, -7) for number in range(min(MANY, large.files))}
    yield _commit("many", made + 1 + CHANGES, made, many)
    yield b"done\n"


def _commit(branch: str, mark: int, parent: int, changes: dict[str, bytes], merged: int = 0) -> bytes:
    head = f"commit refs/heads/{branch}\nmark :{mark}\ncommitter Bench <bench@example.com> {1_700_000_000 + mark} +0000\n"
    message = f"Change {len(changes)} files\n"
    lines: Iterable[str] = [f"data {len(message)}\n{message}", *([f"from :{parent}\n"] * bool(parent))]
    text = head + "".join(lines) + (f"merge :{merged}\n" if merged else "")
    files = b"".join(b"M 100644 inline %s\ndata %d\n%s" % (path.encode(), len(data), data) for path, data in changes.items())
    return text.encode() + files + b"\n"

"""Writing files to a folder in the in-memory adapter."""

from __future__ import annotations

import os
from pathlib import Path

from conman.git.adapter import GitError
from conman.git.checks import MODE_EXECUTABLE, MODE_SUBMODULE, MODE_SYMLINK, is_dot_git, shown
from conman.git.memory_objects import Files, ObjectStore


def write_files(operation: str, store: ObjectStore, files: Files, destination: Path) -> int:
    """Write files below the empty folder `destination` (made when missing); their number without the submodules."""
    for name in {name for path in files for name in path.split(b"/")}:
        if name in (b"", b".", b"..") or is_dot_git(shown(name)):
            raise GitError(operation, f"the tree holds the name {shown(name)!r}", safe_to_repeat=False)
    try:
        destination.mkdir(parents=True, exist_ok=True)
        if any(destination.iterdir()):
            raise GitError(operation, "the folder to export to is not empty", safe_to_repeat=False)
        # Links come last, so that none is there while files are written.
        for path in sorted(files, key=lambda path: files[path].mode == MODE_SYMLINK):
            target = destination / os.fsdecode(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if files[path].mode == MODE_SUBMODULE:
                target.mkdir()
            elif files[path].mode == MODE_SYMLINK:
                target.symlink_to(os.fsdecode(store.blob(files[path].sha)))
            else:
                target.write_bytes(store.blob(files[path].sha))
                target.chmod(0o755 if files[path].mode == MODE_EXECUTABLE else 0o644)
    except OSError as error:
        raise GitError(operation, str(error), safe_to_repeat=True) from error
    return sum(leaf.mode != MODE_SUBMODULE for leaf in files.values())

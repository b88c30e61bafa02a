"""Folders for one run of a program, with the rendered profile in them."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from conman.services.rendering import PROFILE_ENV, PROFILE_JSON, RenderedProfile
from conman.targets.base import TargetError


@asynccontextmanager
async def scratch_folder(root: Path, job_id: str, what: str) -> AsyncIterator[Path]:
    """A folder that nobody else may look into, removed after the block.

    Its name begins with the job's id: what a dead worker leaves is removed by that, once the job has ended. Raises `TargetError`
    for what the machine refuses in the block.
    """
    folder = root / f"{job_id}-{what}-{secrets.token_hex(4)}"
    try:
        await asyncio.to_thread(folder.mkdir, parents=True, mode=0o700)
        yield folder
    except OSError as error:
        raise TargetError(f"The scratch folder can't be used: {error.strerror}.", again=True) from error
    finally:
        await asyncio.to_thread(_remove, folder)


def _remove(folder: Path) -> None:
    """With what a program has protected from being removed: a rendered profile lies beside it."""
    with suppress(OSError):
        folder.chmod(0o700)
        for parent, below, _ in os.walk(folder):
            for path in (Path(parent, name) for name in below):
                if not path.is_symlink():
                    path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


async def written_profile(rendered: RenderedProfile, folder: Path) -> dict[str, str]:
    """The paths of the profile's two files, which this writes into the folder. Raises `TargetError` and `OSError`."""
    try:
        await asyncio.to_thread(rendered.write, folder)
    except ValueError as error:
        raise TargetError(f"The profile can't be written: {error}. Mend the profile.") from error
    return {"profile_env": str(folder / PROFILE_ENV), "profile_json": str(folder / PROFILE_JSON)}

"""A process of its own that reads every file of a commit through a mirror that it shares: `ADDRESS MIRRORS REPO SHA`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from conman.git.gitaly_channel import GitalyChannel, GitalyOptions
from conman.git.gitaly_pack import PackGit, PackOptions


async def main(address: str, mirrors: str, repo: str, sha: str) -> None:
    channel = GitalyChannel(GitalyOptions(address))
    git = PackGit(channel, PackOptions(Path(mirrors), max_bytes=2**30, threads=2))
    entries = await git.list_tree(repo, sha, recursive=True)
    contents = [await git.read_blob(repo, entry.blob_id) for entry in entries]
    print(len(contents), sum(map(len, contents)))
    git.close()
    await channel.close()


asyncio.run(main(*sys.argv[1:]))

"""Each call of the port as an act on a prepared repository, and what it must have come to whatever happened on the way.

What is right is said by `LocalGit`: it does the same act on a copy. The same inputs make the same commits on every backend, so a
repository on which an act was done twice, or by half, has other refs than that copy.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pygit2
from fault_proxy import CallProxy, WireProxy, call_proxy, wire_proxy
from git_harness import ANN, BOB, MAIN, LocalHarness, Repo

from conman.git.adapter import (
    DeleteFile,
    GitAdapter,
    GitError,
    MoveFile,
    RefUpdate,
    RepositoryExists,
    RepositoryMissing,
    StaleRef,
    WriteFile,
)
from conman.git.gitaly_channel import GitalyChannel, GitalyOptions
from conman.git.gitaly_ops import GitalyOperations
from conman.git.gitaly_ops_refs import SCRATCH_BRANCHES, SCRATCH_LIFETIME, SCRATCH_REFS, sweep
from conman.git.gitaly_ops_remote import Remote
from conman.git.gitaly_pack import PackGit, PackOptions
from conman.git.local import LocalGit
from conman.git.server import ServerOptions, serve
from conman.git.server_call import ServerFlavour

MODES = {"pack": ServerFlavour.GITALY_RS, "operations": ServerFlavour.FULL}
TEMPLATE = "template.git"
FEATURE, TOPIC, TAG, PRIVATE = "refs/heads/feature", "refs/heads/topic", "refs/tags/v1", "refs/conman/a"
LARGE = bytes(range(256)) * 1200
"""A file of 300 KB, which comes in several messages."""
CACHE_BYTES = 2**30
PATIENT = GitalyOptions("", short_seconds=30, long_seconds=30, write_seconds=30, transfer_seconds=30, attempts=5)
"""Deadlines that only a hang meets."""


@dataclass(frozen=True, slots=True)
class Shas:
    """The commits of the prepared repository: `base` is below all, `older` below `main`."""

    base: str
    older: str
    main: str
    feature: str
    blob: str


@dataclass(frozen=True, slots=True)
class Act:
    """One call of the port on the prepared repository.

    `again` is what the same call is told once it has been done, when that is not the first result; `modes` are those in which
    it goes a way of its own.
    """

    name: str
    do: Callable[[GitAdapter, str, Shas], Awaitable[Any]]
    again: type[GitError] | None = None
    modes: tuple[str, ...] = ("pack", "operations")


async def prepare(folder: Path) -> Shas:
    """A repository with a main branch, one that left it, and one that is below it."""
    harness = LocalHarness(folder)
    repo = Repo(harness, TEMPLATE, count(1))
    await harness.git.create_repository(TEMPLATE, "main")
    files = {f"conf/{number}.json": b'{"number": %d}\n' % number for number in range(6)} | {
        "large.bin": LARGE,
        "old/name": b"1\n2\n3\n",
    }
    base = await repo.commit(files, ref=MAIN, message="base\n")
    feature = await repo.commit({"conf/0.json": b'{"number": "feature"}\n'}, base, ref=FEATURE, message="feature 1\n")
    feature = await repo.commit({"feature.txt": b"f\n"}, feature, ref=FEATURE, message="feature 2\n")
    older = await repo.commit({"conf/1.json": b'{"number": "older"}\n'}, base, ref=MAIN, message="main 1\n")
    main = await repo.commit([WriteFile("main.txt", b"m\n")], older, ref=MAIN, message="main 2\n")
    await harness.git.update_refs(TEMPLATE, [RefUpdate(TOPIC, None, base), RefUpdate(PRIVATE, None, base)])
    entry = await harness.git.entry(TEMPLATE, base, "large.bin")
    assert entry is not None
    return Shas(base, older, main, feature, entry.blob_id)


def _tagged(shas: Shas) -> list[RefUpdate]:
    return [RefUpdate(TOPIC, shas.base, shas.main), RefUpdate(TAG, None, shas.main), RefUpdate(PRIVATE, shas.base, None)]


OPERATIONS = ("operations",)
READS = [
    Act("resolve", lambda git, repo, shas: git.resolve(repo, MAIN), modes=OPERATIONS),
    Act("list_refs", lambda git, repo, shas: git.list_refs(repo, "refs/heads/")),
    Act("commit", lambda git, repo, shas: git.commit(repo, shas.main), modes=OPERATIONS),
    Act("log", lambda git, repo, shas: git.log(repo, MAIN, exclude=shas.base)),
    Act("merge_base", lambda git, repo, shas: git.merge_base(repo, shas.main, shas.feature), modes=OPERATIONS),
    Act("is_ancestor", lambda git, repo, shas: git.is_ancestor(repo, shas.base, shas.main), modes=OPERATIONS),
    Act("list_tree", lambda git, repo, shas: git.list_tree(repo, shas.main, recursive=True), modes=OPERATIONS),
    Act("entry", lambda git, repo, shas: git.entry(repo, shas.main, "conf/1.json"), modes=OPERATIONS),
    Act("read_file", lambda git, repo, shas: git.read_file(repo, shas.main, "large.bin")),
    Act("read_blob", lambda git, repo, shas: git.read_blob(repo, shas.blob), modes=OPERATIONS),
    Act("changed_paths", lambda git, repo, shas: git.changed_paths(repo, shas.base, shas.feature), modes=OPERATIONS),
    Act("diff", lambda git, repo, shas: git.diff(repo, shas.base, shas.main)),
    Act("trial_revert", lambda git, repo, shas: git.trial_revert(repo, shas.main, shas.base, shas.older)),
    Act("trial_merge", lambda git, repo, shas: git.trial_merge(repo, shas.main, shas.feature)),
]

WRITES = [
    # Who repeats a move that was made is told that the ref is not where it was: the port's rule.
    Act("update_refs", lambda git, repo, shas: git.update_refs(repo, _tagged(shas)), again=StaleRef),
    Act(
        "commit_files",
        lambda git, repo, shas: git.commit_files(
            repo,
            ref=MAIN,
            expected_old=shas.main,
            parent=shas.main,
            changes=[
                WriteFile("new.bin", LARGE[1:]),
                WriteFile("conf/2.json", b"{}\n"),
                DeleteFile("conf/3.json"),
                MoveFile("old/name", "new/name"),
            ],
            author=ANN,
            message="files\n",
        ),
    ),
    Act(
        "commit_files_on_a_new_private_ref",
        lambda git, repo, shas: git.commit_files(
            repo,
            ref="refs/conman/new",
            expected_old=None,
            parent=shas.main,
            changes=[WriteFile("conf/2.json", b"{}\n")],
            author=ANN,
            message="private\n",
        ),
    ),
    Act(
        "merge",
        lambda git, repo, shas: git.merge(
            repo, ref=MAIN, expected_old=shas.main, ours=shas.main, theirs=shas.feature, author=ANN, message="merge\n"
        ),
    ),
    Act(
        "rebase",
        lambda git, repo, shas: git.rebase(
            repo, ref=FEATURE, expected_old=shas.feature, head=shas.feature, onto=shas.main, committer=BOB
        ),
    ),
    Act(
        "revert",
        lambda git, repo, shas: git.revert(
            repo,
            ref=MAIN,
            expected_old=shas.main,
            onto=shas.main,
            base=shas.base,
            head=shas.older,
            author=ANN,
            message="revert\n",
        ),
    ),
    Act(
        "commit_tree_of",
        lambda git, repo, shas: git.commit_tree_of(
            repo, ref=TOPIC, expected_old=shas.base, tree_of=shas.feature, parents=[shas.base], author=ANN, message="squash\n"
        ),
    ),
    Act(
        "commit_files_by_push",
        lambda git, repo, shas: git.commit_files(
            repo,
            ref=MAIN,
            expected_old=shas.main,
            parent=shas.main,
            changes=[WriteFile("conf/2.json", b"{}\n")],
            author=ANN,
            committer=replace(ANN, when=BOB.when),
            message="other times\n",
        ),
        modes=OPERATIONS,
    ),
    Act("create_repository", lambda git, repo, shas: git.create_repository(f"made/{repo}", "main"), again=RepositoryExists),
    Act("remove_repository", lambda git, repo, shas: git.remove_repository(repo), again=RepositoryMissing),
]


@dataclass
class Stack:
    """An adapter to a server through both proxies, and the server's repositories behind its back."""

    mode: str
    git: GitAdapter
    channel: GitalyChannel
    storage: Path
    template: Path
    shas: Shas
    proxy: CallProxy
    wire: WireProxy
    numbers: count[int]

    def fresh(self) -> str:
        """A new copy of the prepared repository."""
        name = f"{next(self.numbers)}.git"
        shutil.copytree(self.template / TEMPLATE, self.storage / name)
        return name

    def state(self, repo: str) -> Mapping[str, str] | None:
        """See `state`."""
        return state(self.storage, repo)

    def scratch(self, repo: str) -> list[str]:
        """The short-lived refs that are there."""
        return [name for name in refs_of(self.storage / repo) or {} if is_scratch(name)]

    async def swept(self, repo: str) -> None:
        """What the hourly sweep does, once its time has come for all that is there."""
        if refs_of(self.storage / repo) is not None:
            remote = Remote("sweep", repo, self.channel)
            ahead = max([int(name.rpartition("/")[2].partition("-")[0]) for name in self.scratch(repo)], default=0)
            await sweep(remote, ahead + SCRATCH_LIFETIME + 1)


def state(storage: Path, repo: str) -> Mapping[str, str] | None:
    """All refs of a repository but the short-lived ones, and whether what an act makes beside it is there; None: it is gone."""
    refs = refs_of(storage / repo)
    found = None if refs is None else {name: sha for name, sha in refs.items() if not is_scratch(name)}
    return found if refs_of(storage / "made" / repo) is None else {**(found or {}), "made": "yes"}


def is_scratch(name: str) -> bool:
    return name.startswith((SCRATCH_BRANCHES, SCRATCH_REFS))


def refs_of(folder: Path) -> dict[str, str] | None:
    """What refs hold, read from the disk; None when there is no repository."""
    if not (folder / "HEAD").is_file():
        return None
    references = pygit2.Repository(str(folder)).references
    return {name: str(references[name].target) for name in references if name != "HEAD"}


def fsck(folder: Path) -> None:
    """`git fsck --strict` has nothing to say, and no lock is left on a ref."""
    if (folder / "HEAD").is_file():
        checked = subprocess.run(
            ["git", "fsck", "--strict", "--no-dangling"], cwd=folder, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert not checked.stdout.strip(), checked.stdout
        assert [*folder.glob("refs/**/*.lock"), *folder.glob("packed-refs.lock")] == []


@contextmanager
def adapter(mode: str, channel: GitalyChannel, root: Path) -> Iterator[GitAdapter]:
    """An adapter of a mode, with its cache below `root`."""
    if mode == "pack":
        git: PackGit | GitalyOperations = PackGit(channel, PackOptions(root / "mirrors", max_bytes=CACHE_BYTES, threads=4))
    else:
        git = GitalyOperations(channel, root / "objects", cache_bytes=CACHE_BYTES, threads=4)
    try:
        yield git
    finally:
        git.close()


async def rightly(template: Path, scratch: Path, act: Act, shas: Shas) -> tuple[Any, Mapping[str, str] | None]:
    """What the act's result is, and the state that it leaves, by `LocalGit`."""
    folder = scratch / act.name
    shutil.copytree(template / TEMPLATE, folder / TEMPLATE)
    git = LocalGit(folder, threads=1)
    result = await act.do(git, TEMPLATE, shas)
    git.close()
    return result, state(folder, TEMPLATE)


@asynccontextmanager
async def stack(root: Path, mode: str, options: GitalyOptions = PATIENT) -> AsyncIterator[Stack]:
    """A server, both proxies and an adapter of that mode, until the end of the block."""
    served = ServerOptions(flavour=MODES[mode], stop_seconds=0)
    async with serve(root / "storage", served) as server, stack_before(server, root / "storage", root, mode, options) as made:
        yield made


@asynccontextmanager
async def stack_before(
    server: str, storage: Path, root: Path, mode: str, options: GitalyOptions = PATIENT
) -> AsyncIterator[Stack]:
    """Both proxies and an adapter of that mode before a server of `storage`, until the end of the block."""
    shas = await prepare(root / "prepared")
    async with call_proxy(server) as proxy, wire_proxy(proxy.address) as wire:
        proxy.reset_connections = wire.reset
        channel = GitalyChannel(replace(options, address=wire.address))
        with adapter(mode, channel, root) as git:
            yield Stack(mode, git, channel, storage, root / "prepared", shas, proxy, wire, count(1))
        await channel.close()

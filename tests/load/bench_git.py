"""The Git half of `make bench`: the local backend on a large repository, beside bare pygit2 and the `git` program, in one run.

`python -m tests.load.bench_git` measures it alone, without a stack.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pygit2

from conman.git.adapter import RefUpdate, Signature, WriteFile
from conman.git.local import LocalGit
from tests.load.bench_repository import CHANGES, MANY, Large, content, make
from tests.load.report import Limit, Row, console, row, say, table, timed

MAIN = "refs/heads/main"
MERGED = "refs/heads/merged"
ME = Signature("Bench", "bench@example.com", datetime(2025, 1, 1, tzinfo=UTC))


async def side_by_side(
    what: str,
    rounds: int,
    ours: Callable[[int], Awaitable[Any]],
    bare: Callable[[int], Any],
    program: Callable[[int], Any],
    limit: Limit | None = None,
) -> Row:
    """The medians of the three, taken in turns."""
    times: dict[str, list[float]] = {"ours": [], "pygit2": [], "git": []}
    for number in range(rounds):
        started = time.perf_counter()
        await ours(number)
        times["ours"].append(time.perf_counter() - started)
        for name, work in (("pygit2", bare), ("git", program)):
            started = time.perf_counter()
            work(number)
            times[name].append(time.perf_counter() - started)
    say(f"measured {what} ({rounds} times)")
    medians = {name: statistics.median(taken) * 1000 for name, taken in times.items()}
    return row(what, medians.pop("ours"), medians, limit)


class Bare:
    """The same work in bare pygit2, as short as it can be written."""

    def __init__(self, large: Large) -> None:
        self.repository = pygit2.Repository(str(large.path))
        self.me = pygit2.Signature(ME.name, ME.email)

    def tree(self, name: str = MAIN) -> pygit2.Tree:
        """The tree of a branch."""
        return self.repository.revparse_single(name).peel(pygit2.Tree)

    def list(self, commit: str) -> list[tuple[str, str, int]]:
        """Path, id and size of every file of a commit."""
        found: list[tuple[str, str, int]] = []

        def walk(tree: pygit2.Tree, prefix: str) -> None:
            for item in tree:
                if isinstance(item, pygit2.Tree):
                    walk(item, f"{prefix}{item.name}/")
                else:
                    found.append((f"{prefix}{item.name}", str(item.id), self.repository.odb.read_header(item.id)[1]))

        walk(self.tree(commit), "")
        return found

    def diff(self, _: int) -> list[str]:
        """The patch of every file that `many` changes."""
        return [patch.text for patch in self.tree().diff_to_tree(self.tree("refs/heads/many")) if patch is not None]

    def log(self, count: int) -> list[str]:
        """Messages, newest first."""
        walker = self.repository.walk(self.repository.references[MAIN].target, pygit2.enums.SortMode.TOPOLOGICAL)
        return [commit.message for commit, _ in zip(walker, range(count), strict=False)]

    def write(self, path: str, data: bytes, ref: str) -> None:
        """A commit of one changed file on a branch."""
        repository, *names = self.repository, *path.split("/")
        head = repository.references[ref].target
        trees = [repository[head].peel(pygit2.Tree)]
        for name in names[:-1]:
            trees.append(trees[-1][name].peel(pygit2.Tree))
        made, mode = repository.create_blob(data), pygit2.enums.FileMode.BLOB
        for tree, name in zip(reversed(trees), reversed(names), strict=True):
            builder = repository.TreeBuilder(tree)
            builder.insert(name, made, mode)
            made, mode = builder.write(), pygit2.enums.FileMode.TREE
        repository.create_commit(ref, self.me, self.me, "bare", made, [head])

    def merge(self, ours: str, theirs: str) -> str:
        """A merge commit; its sha."""
        parents = [pygit2.Oid(hex=ours), pygit2.Oid(hex=theirs)]
        return str(self.repository.create_commit(None, self.me, self.me, "bare", self.merged_tree(ours, theirs), parents))

    def merged_tree(self, ours: str, theirs: str) -> pygit2.Oid:
        """The tree of a clean merge."""
        return self.repository.merge_commits(pygit2.Oid(hex=ours), pygit2.Oid(hex=theirs)).write_tree(self.repository)


def git(large: Large, *arguments: str, given: bytes = b"") -> str:
    """The output of the `git` program."""
    identity = ["-c", "user.name=Bench", "-c", "user.email=bench@example.com"]
    done = subprocess.run(["git", *identity, *arguments], cwd=large.path, input=given, capture_output=True, check=True)
    return done.stdout.decode()


def program_write(large: Large, path: str, data: bytes, ref: str) -> None:
    """A commit of one changed file on a branch, by one process."""
    head = f"commit {ref}\ncommitter Bench <bench@example.com> now\ndata 1\nm\nfrom {ref}^0\n".encode()
    given = head + b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(data), data)
    git(large, "fast-import", "--quiet", "--date-format=now", given=given)


async def reading(local: LocalGit, large: Large) -> list[Row]:
    """Rows that change nothing."""
    name, bare = large.name, Bare(large)
    commits = [commit.sha for commit in await local.log(name, MAIN, limit=large.commits)]
    newest, oldest = commits[0], commits[-1]
    files = f"{large.files:,} files"
    return [
        await side_by_side(
            f"tree of {files}, recursive, first look",
            9,
            lambda number: local.list_tree(name, commits[number], recursive=True),
            lambda number: bare.list(commits[number]),
            lambda number: git(large, "ls-tree", "-r", "-l", commits[number]),
            Limit(3000),
        ),
        await side_by_side(
            f"tree of {files}, recursive, looked at again",
            9,
            lambda _: local.list_tree(name, newest, recursive=True),
            lambda _: bare.list(newest),
            lambda _: git(large, "ls-tree", "-r", "-l", newest),
        ),
        await side_by_side(
            f"one file of {files}",
            50,
            lambda number: local.read_file(name, newest, large.file(number * 97)),
            lambda number: bare.tree()[large.file(number * 97)].data,
            lambda number: git(large, "cat-file", "blob", f"{MAIN}:{large.file(number * 97)}"),
            Limit(500),
        ),
        await side_by_side(
            f"diff of {MANY:,} changed files, patches",
            9,
            lambda _: local.diff(name, newest, "refs/heads/many"),
            bare.diff,
            lambda _: git(large, "diff", MAIN, "refs/heads/many"),
            Limit(5000),
        ),
        await side_by_side(
            f"paths of {MANY:,} changed files",
            9,
            lambda _: local.changed_paths(name, newest, "refs/heads/many"),
            lambda _: len(bare.tree().diff_to_tree(bare.tree("refs/heads/many"))),
            lambda _: git(large, "diff-tree", "-r", MAIN, "refs/heads/many"),
        ),
        await side_by_side(
            f"log of all {large.commits:,} commits",
            5,
            lambda _: local.log(name, newest, limit=large.commits),
            lambda _: bare.log(large.commits),
            lambda _: git(large, "log", "--topo-order", "--format=raw", MAIN),
        ),
        await side_by_side(
            "log of the last 20 commits",
            20,
            lambda _: local.log(name, newest, limit=20),
            lambda _: bare.log(20),
            lambda _: git(large, "log", "-20", "--topo-order", "--format=raw", MAIN),
        ),
        await side_by_side(
            f"merge base over {large.commits:,} commits",
            20,
            lambda _: local.merge_base(name, newest, oldest),
            lambda _: bare.repository.merge_base(pygit2.Oid(hex=newest), pygit2.Oid(hex=oldest)),
            lambda _: git(large, "merge-base", newest, oldest),
        ),
    ]


async def writing(local: LocalGit, large: Large, limit: Limit | None = None) -> Row:
    """One commit of one changed file, on a branch of each side's own."""
    head = await local.resolve(large.name, MAIN)
    refs = [f"refs/heads/by/{who}" for who in ("ours", "bare", "git")]
    await local.update_refs(large.name, [RefUpdate(ref, None, head) for ref in refs])
    bare = Bare(large)

    async def ours(number: int) -> None:
        at = await local.resolve(large.name, refs[0])
        change = WriteFile(large.file(number), content(number, 1_000_000))
        await local.commit_files(
            large.name, ref=refs[0], expected_old=at, parent=at, changes=[change], author=ME, message=f"change {number}"
        )

    return await side_by_side(
        f"write of one file (one commit, {large.files:,} files)",
        60,
        ours,
        lambda number: bare.write(large.file(number), content(number, 1_000_001), refs[1]),
        lambda number: program_write(large, large.file(number), content(number, 1_000_002), refs[2]),
        limit,
    )


async def merging(local: LocalGit, large: Large) -> list[Row]:
    """A trial merge, and a release of a hundred changesets: one merge commit each, in order."""
    name, bare = large.name, Bare(large)
    refs = await local.list_refs(name, "refs/heads/")
    start, heads = refs[MAIN], [refs[f"refs/heads/change/{number}"] for number in range(CHANGES)]
    trial = await side_by_side(
        f"trial merge ({large.files:,} files)",
        20,
        lambda number: local.trial_merge(name, heads[0], heads[number + 1]),
        lambda number: bare.merged_tree(heads[0], heads[number + 1]),
        lambda number: git(large, "merge-tree", "--write-tree", heads[0], heads[number + 1]),
    )

    async def ours(number: int) -> None:
        at, ref = start, f"{MERGED}/{number}"
        for place, head in enumerate(heads):
            old = at if place else None
            made = await local.merge(name, ref=ref, expected_old=old, ours=at, theirs=head, author=ME, message=f"merge {place}")
            assert made.sha is not None
            at = made.sha

    def bare_pygit2(_: int) -> None:
        at = start
        for head in heads:
            at = bare.merge(at, head)

    def program(_: int) -> None:
        at = start
        for head in heads:
            tree = git(large, "merge-tree", "--write-tree", at, head).strip()
            at = git(large, "commit-tree", tree, "-p", at, "-p", head, "-m", "merge").strip()

    what = f"merge of a release of {CHANGES} changesets ({large.files:,} files)"
    return [trial, await side_by_side(what, 3, ours, bare_pygit2, program, Limit(2, "pygit2"))]


async def memory(local: LocalGit, large: Large, calls: int = 60) -> Row:
    """What stays in memory when the same calls are made again and again."""

    commits = [commit.sha for commit in await local.log(large.name, MAIN, limit=2 * calls)]

    async def once(number: int) -> None:
        await local.list_tree(large.name, commits[number], recursive=True)
        await local.diff(large.name, MAIN, "refs/heads/many")
        await local.trial_merge(large.name, "refs/heads/change/0", f"refs/heads/change/{1 + number % (CHANGES - 1)}")
        await local.log(large.name, MAIN, limit=1000)

    for number in range(calls):
        await once(number)
    before = _resident()
    for number in range(calls):
        await once(calls + number)
    after = _resident()
    beside = f"peak {_resident('VmHWM'):.0f} MiB"
    return Row(f"memory after {calls} more trees, diffs, merges and logs", f"{after - before:+.1f} MiB", beside, "flat")


def _resident(field: str = "VmRSS") -> float:
    """Of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


class Client(Protocol):
    """A person's client, as `bench_stack.Person` has it."""

    async def call(self, method: str, path: str, **more: Any) -> Any:
        """The `data` of a reply."""
        ...


async def over_http(large: Large, ann: Client, workspace: str) -> list[Row]:
    """The same repository through the API, in a workspace of it that has a pending edit."""
    pages = -(-large.files // 100)

    async def page(number: int) -> list[Any]:
        query = {"recursive": "true", "page": str(number + 1), "limit": "100"}
        return await ann.call("GET", f"{workspace}/files", params=query)

    async def times(what: str, count: int, work: Callable[[int], Awaitable[Any]]) -> list[float]:
        found = [await timed(work(number)) for number in range(count)]
        say(f"measured {what} ({count} times)")
        return found

    listed = await times("pages over HTTP", pages, page)
    read = await times(
        "files over HTTP", 50, lambda n: ann.call("GET", f"{workspace}/files", params={"path": large.file(n * 97)})
    )
    return [
        row(f"HTTP: tree of {large.files:,} files, all {pages} pages one by one", sum(listed), limit=Limit(3000)),
        row("HTTP: one page of it, p50", statistics.median(listed)),
        row(f"HTTP: one file of {large.files:,}, p50", statistics.median(read), limit=Limit(500)),
    ]


async def measure(folder: Path) -> list[Row]:
    """All rows that need no stack."""
    say("making the repositories")
    large, small = make(folder, "large.git", 10_000, 5_000), make(folder, "small.git", 200, 50)
    local = LocalGit(folder, threads=4)
    try:
        rows = await reading(local, large)
        rows.append(await writing(local, small, Limit(20)))
        rows.append(await writing(local, large))
        rows.extend(await merging(local, large))
        rows.append(await memory(local, large))
    finally:
        local.close()
    return rows


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="conman-bench-git-") as folder:
        rows = asyncio.run(measure(Path(folder)))
    console.print(table("Git, side by side, in one run", rows))


if __name__ == "__main__":
    main()

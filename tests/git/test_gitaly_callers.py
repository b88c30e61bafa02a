"""Many callers at once on one file of a Gitaly server, with faults drawn from a seed: every line is there once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from fault_harness import MODES, PATIENT, Stack, fsck, stack
from fault_proxy import DELAYED, DONE_RESET, cut_short, failing, losing
from git_harness import ANN, MAIN

from conman.git.adapter import GitError, StaleRef, WriteFile
from tests.support.sizes import size

Status = grpc.StatusCode
CALLERS = size(30, 100)
SEED = 20240501
ODDS = 0.15
LONGEST_PAUSE = 8.0
"""Seconds. Who lost makes room: with short pauses a hundred callers make two thousand tries for their hundred lines."""
FAULTS = [
    failing(Status.UNAVAILABLE),
    failing(Status.RESOURCE_EXHAUSTED),
    losing(Status.UNAVAILABLE),
    losing(Status.DEADLINE_EXCEEDED),
    cut_short(1, Status.UNAVAILABLE),
    DONE_RESET,
    DELAYED,
]
PATH = "counter.txt"


@pytest_asyncio.fixture(params=list(MODES))
async def on(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(tmp_path, request.param, replace(PATIENT, attempts=4)) as made:
        yield made


async def read(on: Stack, repo: str) -> tuple[str, bytes]:
    """The branch's head and the file's content there, however often that has to be asked."""
    while True:
        try:
            head = await on.git.resolve(repo, MAIN)
            assert head is not None
            found = await on.git.read_file(repo, head, PATH)
        except GitError as error:
            assert error.safe_to_repeat, error
            continue
        return head, b"" if found is None else found.data


async def append(on: Stack, repo: str, line: bytes, told: Counter[str]) -> None:
    """Add a line by compare-and-swap; a line whose write is told as lost to another's is not looked for: it must not be there."""
    pauses = random.Random(line)
    tries = 0
    while True:
        head, content = await read(on, repo)
        doubtful = False
        while True:
            try:
                await on.git.commit_files(
                    repo,
                    ref=MAIN,
                    expected_old=head,
                    parent=head,
                    changes=[WriteFile(PATH, content + line)],
                    author=ANN,
                    message=f"add {line.decode()}",
                )
            except StaleRef:
                told["stale"] += 1
                if doubtful and line in (await read(on, repo))[1].splitlines(keepends=True):
                    return
                break
            except GitError as error:
                assert error.safe_to_repeat, error
                told["unknown"] += 1
                doubtful = True
            else:
                return
        tries += 1
        await asyncio.sleep(pauses.uniform(0, min(0.5 * 2**tries, LONGEST_PAUSE)))


async def test_a_hundred_callers_through_a_storm_each_add_their_line_once(on: Stack) -> None:
    repo = on.fresh()
    told: Counter[str] = Counter()
    on.proxy.storm(SEED, ODDS, FAULTS)
    lines = [b"caller %d\n" % number for number in range(CALLERS)]
    await asyncio.gather(*(append(on, repo, line, told) for line in lines))
    harmed = on.proxy.harmed
    on.proxy.calm()
    _, content = await read(on, repo)
    assert Counter(content.splitlines(keepends=True)) == Counter(lines)
    history = await on.git.log(repo, MAIN, exclude=on.shas.main)
    assert Counter(commit.message for commit in history) == Counter(f"add {line.decode()}" for line in lines)
    assert harmed > CALLERS
    assert told["stale"] > 0
    await on.swept(repo)
    assert on.scratch(repo) == []
    fsck(on.storage / repo)

"""Each call of the port on a Gitaly server, with all that may go wrong with each call to the server that it makes.

Whatever happens: the right answer, or a `GitError` that says truthfully whether to repeat; the repository as after one call or
none; and a repeat gets the first result and does nothing twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from fault_harness import PATIENT, READS, WRITES, Act, Stack, fsck, rightly, stack
from fault_proxy import (
    DELAYED,
    DONE_DOWN,
    DONE_HANGS,
    DONE_RESET,
    HANGS,
    Fault,
    cut_short,
    failing,
    losing,
    request_cut_short,
)

from conman.git.adapter import (
    ChangeRefused,
    GitError,
    ObjectMissing,
    RepositoryExists,
    RepositoryMissing,
    StaleFile,
    StaleRef,
)
from tests.support.sizes import some_of

Status = grpc.StatusCode
WRITING = {
    "CreateRepository",
    "PostReceivePack",
    "RemoveRepository",
    "UpdateReferences",
    "UserCommitFiles",
    "UserMergeToRef",
    "UserRebaseToRef",
}
SQUASH = "UserSquash"
"""It moves no ref and makes the same commit each time, so that it is made again like a read."""
VERIFIED = {"GetBlob", "GetTreeEntries", "InfoRefsReceivePack", "InfoRefsUploadPack", "PostUploadPack", "TreeEntry"}
"""Calls whose answer shows by itself whether it is whole; of a list, only the server knows."""
UNARY = {"CommitIsAncestor", "FindCommit", "FindMergeBase", "RepositoryExists", SQUASH}
UNTRUE = (ChangeRefused, ObjectMissing, RepositoryExists, RepositoryMissing, StaleFile, StaleRef)
"""What must not be said here, where everything is as the call expects and nobody else writes."""
FEW_TRIES = replace(PATIENT, attempts=3)
HASTY = replace(FEW_TRIES, write_seconds=0.5, transfer_seconds=0.5)
"""For calls that are never answered."""

WRITE_FAULTS = [
    failing(Status.UNAVAILABLE),
    failing(Status.RESOURCE_EXHAUSTED),
    failing(Status.INTERNAL),
    losing(Status.UNAVAILABLE),
    losing(Status.INTERNAL),
    DONE_RESET,
    DONE_DOWN,
    DONE_HANGS,
    HANGS,
    DELAYED,
    cut_short(0),
    request_cut_short(1),
]
PASSING = {failing(Status.UNAVAILABLE), failing(Status.RESOURCE_EXHAUSTED), DELAYED}
"""What the client gets over by itself."""
DONE = {losing(Status.UNAVAILABLE), losing(Status.INTERNAL), DONE_RESET, DONE_HANGS, cut_short(0)}
"""What it gets over when the server has done the work: it looks, and does not do it again."""


def read_faults(method: str) -> Sequence[Fault]:
    """What may go wrong with a call that changes nothing, and can be noticed."""
    found = [
        failing(Status.UNAVAILABLE),
        failing(Status.INTERNAL),
        losing(Status.RESOURCE_EXHAUSTED),
        cut_short(1, Status.UNAVAILABLE),
        DONE_RESET,
        DELAYED,
    ]
    if method in VERIFIED | UNARY:
        found.append(cut_short(0))
    if method in VERIFIED:
        found.append(cut_short(1))
    return found


def faults_in_a_write(method: str) -> Sequence[Fault]:
    """What may go wrong with a call on the way to a write; those that only read have all their faults in the reads."""
    if method in WRITING:
        return WRITE_FAULTS
    return read_faults(method) if method == SQUASH else [failing(Status.INTERNAL)]


@asynccontextmanager
async def stacked(tmp_path_factory: pytest.TempPathFactory, mode: str) -> AsyncIterator[Stack]:
    async with stack(tmp_path_factory.mktemp(mode), mode, FEW_TRIES) as made:
        yield made


@pytest_asyncio.fixture(scope="module")
async def pack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with stacked(tmp_path_factory, "pack") as made:
        yield made


@pytest_asyncio.fixture(scope="module")
async def operations(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with stacked(tmp_path_factory, "operations") as made:
        yield made


@pytest.fixture
def on(request: pytest.FixtureRequest) -> Stack:
    return request.getfixturevalue(request.param)


@dataclass
class Trial:
    """What came of one call with one fault."""

    repo: str
    result: Any
    error: GitError | None
    calls: int
    """How often the call to the server that the fault hit was made."""
    done: bool
    """Whether the server answered that call well."""


async def usual_calls(stack: Stack, act: Act) -> Counter[str]:
    """The calls to the server that an act makes when nothing goes wrong."""
    stack.proxy.calm()
    await act.do(stack.git, stack.fresh(), stack.shas)
    return Counter(stack.proxy.calls)


async def tried(stack: Stack, act: Act, method: str, fault: Fault) -> Trial:
    repo, error, result = stack.fresh(), None, None
    stack.proxy.calm()
    stack.proxy.fault(method, fault)
    stack.channel.options = replace(HASTY if fault.hangs else FEW_TRIES, address=stack.channel.options.address)
    try:
        result = await act.do(stack.git, repo, stack.shas)
    except GitError as failed:
        error = failed
    trial = Trial(repo, result, error, stack.proxy.count(method), method in stack.proxy.answered)
    stack.proxy.calm()
    stack.channel.options = replace(FEW_TRIES, address=stack.channel.options.address)
    return trial


@pytest.mark.parametrize(
    ("on", "act"),
    some_of([pytest.param(mode, act, id=f"{mode}-{act.name}") for act in READS for mode in act.modes], one_in=2),
    indirect=["on"],
)
async def test_a_read_is_right_or_fails_and_says_that_it_can_be_repeated(on: Stack, act: Act, tmp_path: Path) -> None:
    right, _ = await rightly(on.template, tmp_path, act, on.shas)
    usual = await usual_calls(on, act)
    for method in usual:
        if method == "FindCommit" and len(usual) > 1:
            # As for `resolve`, which makes no other call.
            continue
        for fault in read_faults(method):
            trial = await tried(on, act, method, fault)
            told = f"{method}: {fault.name}: {trial.error}"
            if trial.error is None:
                assert trial.result == right, told
            else:
                assert fault == failing(Status.INTERNAL), told
                assert (trial.error.operation, trial.error.safe_to_repeat) == (act.name, True), told
                assert trial.calls <= usual[method], f"made again: {told}"
            # What is kept here of the broken answer must not harm the next.
            assert await act.do(on.git, trial.repo, on.shas) == right, told


@pytest.mark.parametrize(
    ("on", "act"),
    some_of([pytest.param(mode, act, id=f"{mode}-{act.name}") for act in WRITES for mode in act.modes], one_in=2),
    indirect=["on"],
)
async def test_a_write_is_done_once_or_not_at_all_and_says_which_or_that_it_can_be_repeated(
    on: Stack, act: Act, tmp_path: Path
) -> None:
    right, after = await rightly(on.template, tmp_path, act, on.shas)
    for method in await usual_calls(on, act):
        for fault in faults_in_a_write(method):
            await check(on, act, method, fault, await tried(on, act, method, fault), right, after)


async def check(on: Stack, act: Act, method: str, fault: Fault, trial: Trial, right: Any, after: Any) -> None:
    repo, error = trial.repo, trial.error
    told = f"{method}: {fault.name}: {error}"
    state = on.state(repo)
    if error is None:
        assert (trial.result, state) == (right, after), told
        if method in WRITING and fault in DONE and trial.done:
            assert trial.calls == 1, f"done again: {told}"
    else:
        assert fault not in PASSING, told
        assert not (fault in DONE and trial.done), f"it was done, and the ref says so: {told}"
        assert not isinstance(error, UNTRUE), f"not true: {told}"
        assert error.operation in act.name, told
        before = on.state(on.fresh())
        assert state in (before, after), told
        assert error.safe_to_repeat or state == before, told
        await repeat(on, act, repo, told, right, expect_again=state == after)
        assert on.state(repo) == after, told
    await on.swept(repo)
    assert on.scratch(repo) == [], told
    fsck(on.storage / repo)


async def repeat(on: Stack, act: Act, repo: str, told: str, right: Any, *, expect_again: bool) -> None:
    """Make the same call once more: the first result, or (where the port has it so) that it has been done."""
    if act.again is not None and expect_again:
        with pytest.raises(act.again):
            await act.do(on.git, repo, on.shas)
    else:
        assert await act.do(on.git, repo, on.shas) == right, told

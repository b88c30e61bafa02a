"""SmartHTTPService of the Git server: what `git` and dulwich would say, line by line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dulwich.protocol import Protocol
from grpc import StatusCode
from server_harness import (
    MAIN,
    MISSING,
    REPOSITORY,
    ZERO,
    Calls,
    calling_with_repository,
    code,
    everything,
    git,
    git_processes,
    until,
)

from conman.git.proto import gitaly_pb2 as pb
from conman.git.server_call import CHUNK_BYTES

PRIVATE = "refs/conman/snapshots/1"


@pytest.fixture
async def calls(tmp_path: Path) -> AsyncIterator[Calls]:
    async with calling_with_repository(tmp_path / "storage") as made:
        yield made


def line(words: str | bytes) -> bytes:
    data = words.encode() if isinstance(words, str) else words
    return f"{len(data) + 4:04x}".encode() + data


def lines(data: bytes) -> list[bytes | None]:
    """The packet lines of a text; a flush is None."""
    rest = [data]

    def read(size: int) -> bytes:
        piece, rest[0] = rest[0][:size], rest[0][size:]
        return piece

    protocol = Protocol(read, lambda _: None)
    found: list[bytes | None] = []
    while rest[0]:
        found.append(protocol.read_pkt_line())
    return found


async def advertised(calls: Calls, *, push: bool = False, protocol: str = "") -> list[bytes | None]:
    method = calls.smart.InfoRefsReceivePack if push else calls.smart.InfoRefsUploadPack
    answers = await everything(method(pb.InfoRefsRequest(repository=REPOSITORY, git_protocol=protocol)))
    return lines(b"".join(answer.data for answer in answers))


async def fetch(calls: Calls, want: str, target: Path) -> list[int]:
    """Fetch a commit with all below it into a new repository; the sizes of the messages that it came in."""
    asked = line(f"want {want} side-band-64k ofs-delta\n") + b"0000" + line("done\n")
    requests = [pb.PostUploadPackRequest(repository=REPOSITORY), pb.PostUploadPackRequest(data=asked)]
    answers = await everything(calls.smart.PostUploadPack(iter(requests)))
    first, *rest = lines(b"".join(answer.data for answer in answers))
    assert first == b"NAK\n"
    pack = b"".join(part[1:] for part in rest if part is not None and part[0] == 1)
    git(target.parent, "init", "-q", "--bare", str(target))
    git(target, "index-pack", "--stdin", "--fix-thin", "--strict", stdin=pack)
    return [len(answer.data) for answer in answers]


async def push(calls: Calls, source: Path, *moves: tuple[str, str, str], abilities: str = "report-status atomic") -> list[str]:
    """Push (ref, old, new) with all objects of the source; the lines of the report."""
    words = [f"{old} {new} {ref}" for ref, old, new in moves]
    commands = line(f"{words[0]}\0 {abilities}") + b"".join(line(word) for word in words[1:]) + b"0000"
    packed = git(source, "pack-objects", "--stdout", "--all", stdin=b"") if any(new != ZERO for _, _, new in moves) else b""
    sent = commands + packed
    pieces = [sent[start : start + CHUNK_BYTES] for start in range(0, len(sent), CHUNK_BYTES)]
    requests = [pb.PostReceivePackRequest(repository=REPOSITORY, gl_id="user-1")]
    requests += [pb.PostReceivePackRequest(data=piece) for piece in pieces]
    answers = await everything(calls.smart.PostReceivePack(iter(requests)))
    return [part.decode().strip() for part in lines(b"".join(answer.data for answer in answers)) if part is not None]


def local_commit(folder: Path, files: dict[str, bytes]) -> str:
    """A repository of one commit."""
    git(folder.parent, "init", "-q", "-b", "main", str(folder))
    for name, data in files.items():
        (folder / name).write_bytes(data)
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=Ann", "-c", "user.email=ann@example.org", "commit", "-q", "-m", "first")
    return git(folder, "rev-parse", "HEAD").decode().strip()


async def test_an_advertisement_names_the_service_all_refs_and_what_the_server_can(calls: Calls) -> None:
    sha = calls.put({"a": b"1"}, ref=MAIN)
    calls.open().references.create(PRIVATE, sha)
    told = await advertised(calls)
    assert told[:2] == [b"# service=git-upload-pack\n", None]
    refs = [part for part in told[2:] if part is not None]
    assert f"{sha} {PRIVATE}\n".encode() in refs
    assert f"{sha} {MAIN}\n".encode() in refs
    assert b"allow-reachable-sha1-in-want" in refs[0]
    told = await advertised(calls, push=True)
    assert told[0] == b"# service=git-receive-pack\n"
    assert told[2] is not None
    assert b" atomic" in told[2]


async def test_version_2_of_the_protocol_is_spoken_when_it_is_asked_for(calls: Calls) -> None:
    assert b"version 2\n" in await advertised(calls, protocol="version=2")


async def test_what_is_fetched_is_what_is_there(calls: Calls, tmp_path: Path) -> None:
    first = calls.put({"a": b"1\n"})
    second = calls.put({"a": b"2\n", "folder/b": os.urandom(3_000_000)}, [first], ref=PRIVATE)
    sizes = await fetch(calls, second, tmp_path / "clone.git")
    assert len(sizes) > 10
    assert max(sizes) <= CHUNK_BYTES
    clone = tmp_path / "clone.git"
    assert git(clone, "rev-list", second) == git(calls.folder, "rev-list", second)
    assert git(clone, "cat-file", "blob", f"{second}:folder/b") == calls.files(second)["folder/b"]


async def test_a_commit_that_no_ref_shows_can_be_fetched(calls: Calls, tmp_path: Path) -> None:
    calls.put({"a": b"1"}, ref=MAIN)
    hidden = calls.put({"a": b"hidden"})
    calls.open().references.delete(f"refs/made/{hidden}")
    await fetch(calls, hidden, tmp_path / "clone.git")
    assert git(tmp_path / "clone.git", "cat-file", "blob", f"{hidden}:a") == b"hidden"


async def test_a_push_makes_first_commits_and_private_refs(calls: Calls, tmp_path: Path) -> None:
    sha = local_commit(tmp_path / "work", {"a": b"1\n", "big": os.urandom(1_000_000)})
    report = await push(calls, tmp_path / "work", (MAIN, ZERO, sha), (PRIVATE, ZERO, sha))
    assert report == ["unpack ok", f"ok {MAIN}", f"ok {PRIVATE}"]
    assert calls.ref(MAIN) == calls.ref(PRIVATE) == sha
    calls.fsck()


async def test_a_push_of_several_refs_moves_all_or_none(calls: Calls, tmp_path: Path) -> None:
    sha = local_commit(tmp_path / "work", {"a": b"1\n"})
    await push(calls, tmp_path / "work", (MAIN, ZERO, sha))
    report = await push(calls, tmp_path / "work", ("refs/tags/r1", ZERO, sha), (MAIN, ZERO, sha))
    assert report[0] == "unpack ok"
    assert [words.split()[0] for words in report[1:]] == ["ng", "ng"]
    assert calls.ref("refs/tags/r1") is None
    assert calls.ref(MAIN) == sha


async def test_a_push_may_move_a_branch_back_and_delete_even_the_default_one(calls: Calls, tmp_path: Path) -> None:
    sha = local_commit(tmp_path / "work", {"a": b"1\n"})
    newer = calls.put({"a": b"2"}, ref=MAIN)
    assert await push(calls, tmp_path / "work", (MAIN, newer, sha)) == ["unpack ok", f"ok {MAIN}"]
    abilities = "report-status delete-refs atomic"
    assert await push(calls, tmp_path / "work", (MAIN, sha, ZERO), abilities=abilities) == ["unpack ok", f"ok {MAIN}"]
    assert calls.ref(MAIN) is None


async def test_objects_that_git_holds_for_damaged_are_not_taken(calls: Calls, tmp_path: Path) -> None:
    work = tmp_path / "work"
    local_commit(work, {"a": b"1\n"})
    blob = git(work, "hash-object", "-w", "a").decode().strip()
    tree = git(work, "mktree", stdin=f"100644 blob {blob}\t.git\n".encode()).decode().strip()
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    bad = git(work, *who, "commit-tree", "-m", "bad", tree).decode().strip()
    git(work, "update-ref", "refs/heads/bad", bad)
    report = await push(calls, work, (MAIN, ZERO, bad))
    assert report[0] != "unpack ok"
    assert calls.ref(MAIN) is None


async def test_hooks_of_a_repository_do_not_run(calls: Calls, tmp_path: Path) -> None:
    hook = calls.folder / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    sha = local_commit(tmp_path / "work", {"a": b"1\n"})
    assert await push(calls, tmp_path / "work", (MAIN, ZERO, sha)) == ["unpack ok", f"ok {MAIN}"]


async def test_what_is_no_request_of_git_is_refused(calls: Calls) -> None:
    garbage = [pb.PostUploadPackRequest(repository=REPOSITORY, data=b"not git at all")]
    assert await code(calls.smart.PostUploadPack(iter(garbage))) is StatusCode.INTERNAL
    wanted = [pb.PostUploadPackRequest(repository=REPOSITORY, data=line(f"want {MISSING}\n") + b"0000" + line("done\n"))]
    assert await code(calls.smart.PostUploadPack(iter(wanted))) is StatusCode.INTERNAL
    assert await code(calls.smart.PostReceivePack(iter([]))) is StatusCode.INVALID_ARGUMENT
    options = pb.InfoRefsRequest(repository=REPOSITORY, git_config_options=["uploadpack.packObjectsHook=touch /tmp/x"])
    assert await code(calls.smart.InfoRefsUploadPack(options)) is StatusCode.INVALID_ARGUMENT
    assert git_processes() == []


async def test_a_cancelled_call_leaves_no_process(calls: Calls) -> None:
    calls.put({"a": b"1"}, ref=MAIN)
    endless = asyncio.Event()

    async def requests() -> AsyncIterator[pb.PostUploadPackRequest]:
        yield pb.PostUploadPackRequest(repository=REPOSITORY)
        await endless.wait()

    call = calls.smart.PostUploadPack(requests())
    reading = asyncio.ensure_future(everything(call))
    await until(lambda: len(git_processes()) == 1)
    call.cancel()
    await until(lambda: git_processes() == [])
    endless.set()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_a_caller_that_stops_reading_leaves_no_process(calls: Calls) -> None:
    sha = calls.put({"big": os.urandom(20_000_000)}, ref=MAIN)
    asked = line(f"want {sha} side-band-64k ofs-delta\n") + b"0000" + line("done\n")
    call = calls.smart.PostUploadPack(iter([pb.PostUploadPackRequest(repository=REPOSITORY, data=asked)]))
    async for _ in call:
        break
    call.cancel()
    await until(lambda: git_processes() == [])


def push_requests(sha: str, source: Path, *refs: str) -> list[pb.PostReceivePackRequest]:
    """A push of new refs in messages of at most a chunk."""
    words = [f"{ZERO} {sha} {ref}" for ref in refs]
    sent = line(f"{words[0]}\0 report-status atomic") + b"".join(line(word) for word in words[1:]) + b"0000"
    sent += git(source, "pack-objects", "--stdout", "--all", stdin=b"")
    pieces = [sent[start : start + CHUNK_BYTES] for start in range(0, len(sent), CHUNK_BYTES)]
    return [pb.PostReceivePackRequest(repository=REPOSITORY), *(pb.PostReceivePackRequest(data=piece) for piece in pieces)]


async def test_a_push_that_is_cancelled_half_way_leaves_nothing_behind(calls: Calls, tmp_path: Path) -> None:
    sha = local_commit(tmp_path / "work", {"big": os.urandom(1_000_000)})
    first_half = push_requests(sha, tmp_path / "work", MAIN)[:4]
    never = asyncio.Event()

    async def requests() -> AsyncIterator[pb.PostReceivePackRequest]:
        for request in first_half:
            yield request
        await never.wait()

    call = calls.smart.PostReceivePack(requests())
    reading = asyncio.ensure_future(everything(call))
    await until(lambda: list(calls.folder.glob("objects/*incoming*")) != [])
    call.cancel()
    await until(lambda: git_processes() == [])
    assert list(calls.folder.glob("objects/*incoming*")) == []
    assert calls.ref(MAIN) is None
    never.set()
    with pytest.raises(asyncio.CancelledError):
        await reading


@pytest.mark.parametrize("pieces_read", [0, 1])
async def test_a_push_that_is_cancelled_once_it_is_whole_moves_all_refs_or_none(
    calls: Calls, tmp_path: Path, pieces_read: int
) -> None:
    sha = local_commit(tmp_path / "work", {"a": b"1"})
    refs = [f"refs/heads/b{number:02}" for number in range(40)]
    call = calls.smart.PostReceivePack(iter(push_requests(sha, tmp_path / "work", *refs)))
    # Where it is fast, it has ended before it is seen.
    await until(lambda: git_processes() != [] or calls.ref(refs[-1]) == sha)
    for _ in range(pieces_read):
        await call.read()
    call.cancel()
    await until(lambda: git_processes() == [])
    assert sum(calls.ref(ref) == sha for ref in refs) in (0, 40)
    assert list(calls.folder.rglob("*.lock")) == []
    calls.fsck()


async def test_many_push_at_once_and_one_wins(calls: Calls, tmp_path: Path) -> None:
    works = [tmp_path / f"work{number}" for number in range(6)]
    heads = [local_commit(work, {"a": f"{number}\n".encode()}) for number, work in enumerate(works)]
    pushes = [push(calls, work, (MAIN, ZERO, head)) for work, head in zip(works, heads, strict=True)]
    reports = await asyncio.gather(*pushes)
    won = [head for head, report in zip(heads, reports, strict=True) if report[1] == f"ok {MAIN}"]
    assert won == [calls.ref(MAIN)]
    calls.fsck()

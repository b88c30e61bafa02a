"""What only the operations mode of the Gitaly client can get wrong; the rules of the port are in the contract suite.

Each test's server is ours, in process; `LocalGit` on the very same repositories says what must come out.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta, timezone
from itertools import count, product
from pathlib import Path
from typing import Any

import grpc
import pygit2
import pytest
from git_harness import ANN, BOB, EXECUTABLE, FILE, MAIN, SUBMODULE, SYMLINK, Repo, ServedHarness, blob_id

from conman.git import gitaly_objects, gitaly_ops_refs, gitaly_ops_session
from conman.git.adapter import (
    CommitOutcome,
    Conflict,
    ConflictKind,
    DeleteFile,
    FileChange,
    GitError,
    MoveFile,
    Signature,
    StaleRef,
    WriteFile,
)
from conman.git.gitaly_channel import GitalyChannel, GitalyOptions
from conman.git.gitaly_ops import GitalyOperations
from conman.git.gitaly_ops_plan import Facts, Plan, Route, Work, plan
from conman.git.gitaly_ops_push import PushRefused
from conman.git.gitaly_ops_refs import SCRATCH_BRANCHES, SCRATCH_LIFETIME, SCRATCH_REFS
from conman.git.gitaly_ops_write import NotSupported
from conman.git.local import LocalGit
from conman.git.proto import gitaly_pb2 as pb
from conman.git.server import serve
from conman.git.server_call import Refused
from conman.git.server_files import FileCalls
from conman.git.server_merges import MergeCalls
from conman.git.server_refs import RefService
from conman.git.server_repository import RepositoryService
from conman.git.server_smart import SmartHTTPService

NAME = "team/app.git"
SIDE = "refs/heads/side"
PRIVATE = "refs/conman/pending/x"
LINES = b"".join(b"line %d\n" % number for number in range(20))
TOP = LINES.replace(b"line 1\n", b"top\n")
BOTTOM = LINES.replace(b"line 18\n", b"bottom\n")
WRITES = {
    "UserCommitFiles": FileCalls,
    "UserMergeToRef": MergeCalls,
    "UserRebaseToRef": MergeCalls,
    "UserSquash": MergeCalls,
    "PostReceivePack": SmartHTTPService,
}

Files = Mapping[str, tuple[int, bytes]]


@dataclass
class Stage(Repo):
    """A repository on a server, the adapter under test, what the local one says, and the writes that the server saw."""

    root: Path
    local: LocalGit
    channel: GitalyChannel
    writes: list[str] = field(default_factory=list[str])

    @property
    def objects(self) -> Path:
        return self.root / "objects"

    def fresh(self, cache_bytes: int = 2**30) -> GitalyOperations:
        """Another adapter on the same store, as after a restart."""
        return GitalyOperations(self.channel, self.objects, cache_bytes=cache_bytes, threads=2)

    def refs(self) -> set[str]:
        """All refs that the server's repository holds."""
        return set(pygit2.Repository(str(self.root / "storage" / NAME)).references)

    def scratch(self) -> set[str]:
        return {ref for ref in self.refs() if ref.startswith((SCRATCH_BRANCHES, SCRATCH_REFS))}


Staged = Callable[[], AbstractAsyncContextManager[Stage]]


@asynccontextmanager
async def staged(root: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    writes: list[str] = []
    for name, service in WRITES.items():
        monkeypatch.setattr(service, name, noted(name, getattr(service, name), writes))
    async with serve(root / "storage") as address:
        channel = GitalyChannel(GitalyOptions(address))
        git = GitalyOperations(channel, root / "objects", cache_bytes=2**30, threads=2)
        local = LocalGit(root / "storage", threads=2)
        await git.create_repository(NAME, "main")
        yield Stage(ServedHarness(git, root / "storage"), NAME, count(1), root, local, channel, writes)
        git.close()
        local.close()
        await channel.close()


def noted(name: str, call: Any, writes: list[str]) -> Any:
    def noting(self: Any, request: Any, context: Any) -> Any:
        writes.append(name)
        return call(self, request, context)

    return noting


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    async with staged(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def behaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractAsyncContextManager[Stage]]:
    """A stage whose server has other calls in place of its own: `behaving((Service, name, call), …)`."""

    def make(*calls: tuple[type, str, Any]) -> AbstractAsyncContextManager[Stage]:
        for service, name, call in calls:
            monkeypatch.setattr(service, name, call)
        return staged(tmp_path, monkeypatch)

    return make


def plain(data: bytes) -> tuple[int, bytes]:
    return (FILE, data)


# The decision.

FITS = Facts(Work.FILES, parents=1, to_branch=True, to_present=True, zone=True, one_time=True, message=True)


@pytest.mark.parametrize(
    ("facts", "route"),
    [
        (FITS, Route.BRANCH),
        (replace(FITS, to_branch=False), Route.SCRATCH),
        (replace(FITS, to_present=False), Route.SCRATCH),
        (replace(FITS, parents=0), Route.SCRATCH),
        (replace(FITS, attributes=True), Route.SCRATCH),
        (replace(FITS, zone=False), Route.PUSH),
        (replace(FITS, one_time=False), Route.PUSH),
        (replace(FITS, message=False), Route.PUSH),
        (replace(FITS, plain=False), Route.PUSH),
        (replace(FITS, work=Work.SQUASH), Route.BRANCH),
        (replace(FITS, work=Work.SQUASH, squashable=True), Route.SQUASH),
        (replace(FITS, work=Work.SQUASH, squashable=True, plain=False), Route.SQUASH),
        (replace(FITS, work=Work.SQUASH, parents=2), Route.PUSH),
        (replace(FITS, work=Work.SQUASH, parents=0), Route.SCRATCH),
        (replace(FITS, work=Work.MERGE, parents=2), Route.MERGE),
        (replace(FITS, work=Work.MERGE, parents=2, to_branch=False, to_present=False), Route.MERGE),
        (replace(FITS, work=Work.MERGE, parents=2, message=False), Route.PUSH),
        (replace(FITS, work=Work.REBASE, one_time=False, message=False), Route.REBASE),
        (replace(FITS, work=Work.REBASE, zone=False), Route.PUSH),
    ],
)
def test_each_commit_is_made_by_what_can_express_it(facts: Facts, route: Route) -> None:
    assert plan(facts).route is route


def test_every_push_has_a_reason_and_nothing_else_has() -> None:
    flags = [name for name in Facts.__dataclass_fields__ if name not in ("work", "parents")]
    for work, parents, values in product(Work, range(3), product([False, True], repeat=len(flags))):
        decided = plan(Facts(work, parents, **dict(zip(flags, values, strict=True))))
        assert bool(decided.reason) == (decided.route is Route.PUSH)
        assert decided == Plan(decided.route, decided.reason)


# Which call makes it, and that it is the commit that every backend makes.

ZONED = replace(BOB, when=BOB.when.astimezone(timezone(timedelta(hours=5, minutes=30))))
PRESENT: Files = {
    "a": plain(LINES),
    "run": (EXECUTABLE, b"#!"),
    "l": (SYMLINK, b"a"),
    "m": (SUBMODULE, b"1" * 40),
    "d/x": plain(b"1"),
}


@pytest.mark.parametrize(
    ("changes", "options", "expected"),
    [
        ([WriteFile("a", TOP), WriteFile("new/file", b"\0\r\n"), DeleteFile("d/x")], {}, ["UserCommitFiles"]),
        ([WriteFile("run", b"#!", executable=False), WriteFile("a", TOP, executable=True)], {}, ["UserCommitFiles"]),
        ([WriteFile("empty", b"", executable=True), MoveFile("a", "b")], {}, ["UserCommitFiles"]),
        ([], {}, ["UserCommitFiles"]),
        ([WriteFile("a", TOP)], {"author": replace(ANN, name="Ünï Cödé")}, ["UserCommitFiles"]),
        ([WriteFile("a", TOP)], {"committer": replace(BOB, when=ANN.when)}, ["UserCommitFiles"]),
        ([WriteFile("a", TOP)], {"committer": BOB}, ["PostReceivePack"]),
        ([WriteFile("a", TOP)], {"author": ZONED}, ["PostReceivePack"]),
        ([WriteFile("a", TOP)], {"message": ""}, ["PostReceivePack"]),
        ([WriteFile("l", b"elsewhere")], {}, ["PostReceivePack"]),
        ([WriteFile("l", b"file", executable=False)], {}, ["PostReceivePack"]),
        ([MoveFile("l", "k")], {}, ["PostReceivePack"]),
        ([DeleteFile("a"), WriteFile("a/b", b"")], {}, ["PostReceivePack"]),
        ([DeleteFile("d/x"), WriteFile("d", b"")], {}, ["PostReceivePack"]),
    ],
)
@pytest.mark.parametrize("ref", [MAIN, SIDE, PRIVATE])
async def test_files_are_committed_by_an_operation_where_one_can_and_pushed_where_none_can(
    stage: Stage, changes: list[FileChange], options: dict[str, Any], expected: list[str], ref: str
) -> None:
    parent = stage.plant(PRESENT, ref=MAIN)
    old = parent if ref == MAIN else None
    arguments: dict[str, Any] = {"parent": parent, "changes": changes, "author": ANN, "message": "m\n\nKey: v\n"} | options
    sha = await stage.git.commit_files(NAME, ref=ref, expected_old=old, **arguments)
    assert await stage.git.resolve(NAME, ref) == sha
    assert set(stage.writes) == set(expected)
    assert stage.scratch() == set()
    assert sha == await stage.local.commit_files(NAME, ref="refs/heads/local", expected_old=None, **arguments)


async def test_a_first_commit_and_another_beside_it_are_made_by_an_operation(stage: Stage) -> None:
    for number, ref in enumerate((MAIN, SIDE)):
        arguments: dict[str, Any] = {"parent": None, "changes": [WriteFile("a", b"%d" % number)], "author": ANN, "message": "m"}
        sha = await stage.git.commit_files(NAME, ref=ref, expected_old=None, **arguments)
        assert sha == await stage.local.commit_files(NAME, ref=f"refs/heads/local{number}", expected_old=None, **arguments)
    assert set(stage.writes) == {"UserCommitFiles"}
    assert stage.scratch() == set()


async def test_merges_rebases_and_squashes_are_made_by_their_operations(stage: Stage) -> None:
    base = stage.plant({"f": plain(LINES)}, ref=MAIN)
    one = await stage.commit({"f": TOP}, base)
    two = await stage.commit({"f": BOTTOM}, base)
    three = await stage.commit({"g": b""}, two)
    stage.writes.clear()
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("merge", "UserMergeToRef", {"ours": one, "theirs": two, "author": BOB, "message": "m\n"}),
        ("rebase", "UserRebaseToRef", {"head": three, "onto": one, "committer": BOB}),
        ("commit_tree_of", "UserSquash", {"tree_of": three, "parents": [base], "author": ANN, "message": "m\n"}),
        ("commit_tree_of", "UserCommitFiles", {"tree_of": three, "parents": [base], "author": ANN, "message": "m"}),
        ("commit_tree_of", "UserCommitFiles", {"tree_of": three, "parents": [one], "author": ANN, "message": "m"}),
        ("commit_tree_of", "PostReceivePack", {"tree_of": three, "parents": [one, two], "author": ANN, "message": "m"}),
        ("revert", "UserCommitFiles", {"onto": three, "base": base, "head": two, "author": ANN, "message": "m"}),
    ]
    for number, (call, operation, arguments) in enumerate(calls):
        made = await getattr(stage.git, call)(NAME, ref=f"refs/conman/{number}", expected_old=None, **arguments)
        assert made == await getattr(stage.local, call)(NAME, ref=f"refs/local/{number}", expected_old=None, **arguments)
        assert set(stage.writes) == {operation}, call
        stage.writes.clear()
    assert stage.scratch() == set()


# Servers that do something else.


def answering(reply: Any) -> Any:
    async def call(self: Any, request: Any, context: Any) -> Any:
        return reply

    return call


def refusing(code: grpc.StatusCode) -> Any:
    async def call(self: Any, request: Any, context: Any) -> Any:
        raise Refused(code, "not here")

    return call


async def no_push(self: Any, request: Any, context: Any) -> AsyncIterator[pb.PostReceivePackResponse]:
    raise Refused(grpc.StatusCode.UNIMPLEMENTED, "no pushes here")
    yield pb.PostReceivePackResponse()


NO_PUSH = (SmartHTTPService, "PostReceivePack", no_push)


@pytest.mark.parametrize("ref", [MAIN, PRIVATE])
async def test_an_ok_without_a_commit_is_no_success(behaving: Any, ref: str) -> None:
    stub = (FileCalls, "UserCommitFiles", answering(pb.UserCommitFilesResponse()))
    async with behaving(stub, (RepositoryService, "FindMergeBase", answering(pb.FindMergeBaseResponse()))) as stage:
        parent = stage.plant({"a": plain(b"1")}, ref=MAIN)
        other = stage.plant({"a": plain(b"2")}, (parent,))
        with pytest.raises(NotSupported):
            await stage.git.commit_files(
                NAME,
                ref=ref,
                expected_old=parent if ref == MAIN else None,
                parent=parent,
                changes=[WriteFile("a", b"2")],
                author=ANN,
                message="m",
            )
        with pytest.raises(GitError, match="merge base"):
            await stage.git.merge_base(NAME, other, parent)
        assert stage.refs() == {MAIN}
        assert await stage.git.resolve(NAME, MAIN) == parent
        assert await stage.git.merge_base(NAME, parent, stage.plant({})) is None


async def converting(self: Any, requests: AsyncIterator[pb.UserCommitFilesRequest], context: Any) -> Any:
    """As a server does that has git's line ends converted."""

    async def converted() -> AsyncIterator[pb.UserCommitFilesRequest]:
        async for request in requests:
            if request.action.content:
                request.action.content = request.action.content.replace(b"\r\n", b"\n")
            yield request

    return await COMMIT_FILES(self, converted(), context)


COMMIT_FILES: Any = FileCalls.UserCommitFiles
MERGE_TO_REF: Any = MergeCalls.UserMergeToRef


@pytest.mark.parametrize("ref", [MAIN, PRIVATE])
@pytest.mark.parametrize("pushes", [True, False])
async def test_a_server_that_converts_what_it_writes_gets_the_commit_pushed_or_none(
    behaving: Any, ref: str, pushes: bool
) -> None:
    calls = [(FileCalls, "UserCommitFiles", converting)] + ([] if pushes else [NO_PUSH])
    async with behaving(*calls) as stage:
        parent = stage.plant({"a": plain(b"1")}, ref=MAIN)
        old = parent if ref == MAIN else None
        arguments: dict[str, Any] = {"parent": parent, "changes": [WriteFile("a", b"1\r\n2\r\n")], "author": ANN, "message": "m"}
        if pushes:
            sha = await stage.git.commit_files(NAME, ref=ref, expected_old=old, **arguments)
            assert await stage.files(sha) == {"a": b"1\r\n2\r\n"}
            assert await stage.git.resolve(NAME, ref) == sha
        else:
            with pytest.raises(PushRefused, match="comes out as"):
                await stage.git.commit_files(NAME, ref=ref, expected_old=old, **arguments)
            assert await stage.git.resolve(NAME, ref) == old
        assert stage.refs() == {MAIN, ref} - ({PRIVATE} if not pushes else set())


async def merging_otherwise(self: Any, request: pb.UserMergeToRefRequest, context: Any) -> pb.UserMergeToRefResponse:
    """The server's merge, but with another content of `f`."""
    reply = await MERGE_TO_REF(self, request, context)
    repository = pygit2.Repository(str(self._ground.storage.root / request.repository.relative_path))
    merged = repository[reply.commit_id].peel(pygit2.Commit)
    builder = repository.TreeBuilder(merged.tree)
    builder.insert("f", repository.create_blob(b"otherwise\n"), pygit2.enums.FileMode.BLOB)
    made = repository.create_commit(None, merged.author, merged.committer, merged.message, builder.write(), merged.parent_ids)
    repository.references.create(request.target_ref.decode(), made, force=True)
    return pb.UserMergeToRefResponse(commit_id=str(made))


@pytest.mark.parametrize("pushes", [True, False])
async def test_a_server_that_merges_otherwise_gets_ours_pushed_or_the_paths_conflict(behaving: Any, pushes: bool) -> None:
    calls = [(MergeCalls, "UserMergeToRef", merging_otherwise)] + ([] if pushes else [NO_PUSH])
    async with behaving(*calls) as stage:
        base = stage.plant({"f": plain(LINES), "g": plain(b"1")})
        one, two = (stage.plant({"f": plain(data), "g": plain(b"1")}, (base,)) for data in (TOP, BOTTOM))
        arguments: dict[str, Any] = {"ours": one, "theirs": two, "author": ANN, "message": "m\n"}
        made = await stage.git.merge(NAME, ref=MAIN, expected_old=None, **arguments)
        if pushes:
            assert made == await stage.local.merge(NAME, ref="refs/heads/local", expected_old=None, **arguments)
        else:
            ids = [blob_id(data) for data in (LINES, TOP, BOTTOM)]
            assert made == CommitOutcome(None, (Conflict("f", ConflictKind.CONTENT, *ids),))
            assert await stage.git.resolve(NAME, MAIN) is None
        assert stage.scratch() == set()


@pytest.mark.parametrize("code", [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNIMPLEMENTED])
async def test_what_an_operation_refuses_is_pushed(behaving: Any, code: grpc.StatusCode) -> None:
    async with behaving((MergeCalls, "UserMergeToRef", refusing(code))) as stage:
        base = stage.plant({"f": plain(LINES)})
        one, two = (stage.plant({"f": plain(data)}, (base,)) for data in (TOP, BOTTOM))
        made = await stage.git.merge(NAME, ref=MAIN, expected_old=None, ours=one, theirs=two, author=ANN, message="m")
        assert made.sha is not None
        assert stage.writes[-1] == "PostReceivePack"


async def test_what_the_server_does_not_permit_is_not_tried_in_another_way(behaving: Any) -> None:
    async with behaving((MergeCalls, "UserMergeToRef", refusing(grpc.StatusCode.PERMISSION_DENIED))) as stage:
        base = stage.plant({"f": plain(LINES)})
        one, two = (stage.plant({"f": plain(data)}, (base,)) for data in (TOP, BOTTOM))
        with pytest.raises(GitError, match="does not permit"):
            await stage.git.merge(NAME, ref=MAIN, expected_old=None, ours=one, theirs=two, author=ANN, message="m")
        assert stage.refs() == set()
        assert "PostReceivePack" not in stage.writes


async def test_a_refused_push_says_what_no_operation_can_express(behaving: Any) -> None:
    async with behaving(NO_PUSH) as stage:
        parent = stage.plant({"l": (SYMLINK, b"a")}, ref=MAIN)
        with pytest.raises(PushRefused, match="links, submodules"):
            await stage.commit([WriteFile("l", b"b")], parent, ref=MAIN)
        assert await stage.git.resolve(NAME, MAIN) == parent


# Answers that get lost.


def answer_lost(call: Any, times: int) -> Any:
    """The call does its work, but its first answers don't arrive."""
    left = [times]

    async def losing(self: Any, request: Any, context: Any) -> Any:
        reply = await call(self, request, context)
        if left[0]:
            left[0] -= 1
            raise Refused(grpc.StatusCode.UNAVAILABLE, "lost")
        return reply

    return losing


LOST: dict[str, tuple[type, str]] = {
    "files": (FileCalls, "UserCommitFiles"),
    "merge": (MergeCalls, "UserMergeToRef"),
    "move": (RefService, "UpdateReferences"),
    "squash": (MergeCalls, "UserSquash"),
    "rebase": (MergeCalls, "UserRebaseToRef"),
}


@pytest.mark.parametrize("case", LOST)
@pytest.mark.parametrize("times", [1, 2])
async def test_a_write_whose_answer_is_lost_is_done_once(behaving: Any, case: str, times: int) -> None:
    service, name = LOST[case]
    async with behaving((service, name, answer_lost(getattr(service, name), times))) as stage:
        base = stage.plant({"f": plain(LINES)}, ref=MAIN)
        one = await stage.commit({"f": TOP}, base, ref=MAIN)
        two = stage.plant({"f": plain(BOTTOM)}, (base,))
        assert (await stage.git.commit(NAME, one)).parents == (base,)
        merged = await stage.git.merge(NAME, ref=MAIN, expected_old=one, ours=one, theirs=two, author=ANN, message="m")
        assert await stage.git.resolve(NAME, MAIN) == merged.sha
        rebased = await stage.git.rebase(NAME, ref=SIDE, expected_old=None, head=two, onto=one, committer=ANN)
        assert await stage.git.resolve(NAME, SIDE) == rebased.sha
        squashed = await stage.git.commit_tree_of(
            NAME, ref=PRIVATE, expected_old=None, tree_of=two, parents=[base], author=ANN, message="m\n"
        )
        assert await stage.git.resolve(NAME, PRIVATE) == squashed
        assert stage.refs() == {MAIN, SIDE, PRIVATE}
        assert merged.sha is not None
        assert len(await stage.git.log(NAME, merged.sha)) == 4


# Our own short-lived refs.


async def test_a_ref_of_ours_goes_when_the_target_has_moved_meanwhile(behaving: Any) -> None:
    async def moving(self: Any, request: pb.UserMergeToRefRequest, context: Any) -> pb.UserMergeToRefResponse:
        reply = await MERGE_TO_REF(self, request, context)
        repository = pygit2.Repository(str(self._ground.storage.root / request.repository.relative_path))
        repository.references.create(MAIN, request.source_sha, force=True)
        return reply

    async with behaving((MergeCalls, "UserMergeToRef", moving)) as stage:
        base = stage.plant({"f": plain(LINES)}, ref=MAIN)
        one, two = (stage.plant({"f": plain(data)}, (base,)) for data in (TOP, BOTTOM))
        with pytest.raises(StaleRef) as stale:
            await stage.git.merge(NAME, ref=MAIN, expected_old=base, ours=one, theirs=two, author=ANN, message="m")
        assert stale.value.ref == MAIN
        assert stage.refs() == {MAIN}
        assert await stage.git.resolve(NAME, MAIN) == two


@pytest.mark.parametrize("prefix", [SCRATCH_BRANCHES, SCRATCH_REFS])
async def test_what_the_dead_left_is_nobodys_business_and_swept_by_its_age(stage: Stage, prefix: str) -> None:
    sha = stage.plant({"a": plain(b"1")}, ref=MAIN)
    now = int(time.time())
    old, young, odd = f"{prefix}{now - SCRATCH_LIFETIME - 60}-x", f"{prefix}{now - 60}-x", f"{prefix}odd"
    for ref in (old, young, odd):
        stage.harness.set_ref(NAME, ref, sha)
    assert await stage.git.list_refs(NAME, "refs/") == {MAIN: sha}
    await stage.commit({"b": b""}, sha, ref=SIDE)
    assert stage.scratch() == {young}


async def test_a_move_waits_for_refs_that_another_one_locks(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gitaly_ops_refs, "LOCK_PATIENCE", 60.0)
    left = [2]
    call: Any = RefService.UpdateReferences

    async def locked(self: Any, requests: Any, context: Any) -> Any:
        async for _ in requests:
            pass
        raise Refused(grpc.StatusCode.ABORTED, "reference is already locked")

    async def update(self: Any, requests: Any, context: Any) -> Any:
        left[0] -= 1
        return await (locked if left[0] >= 0 else call)(self, requests, context)

    monkeypatch.setattr(RefService, "UpdateReferences", update)
    root = stage.root / "second"
    async with serve(root / "storage") as address:
        channel = GitalyChannel(GitalyOptions(address))
        git = GitalyOperations(channel, root / "objects", cache_bytes=2**30, threads=2)
        await git.create_repository(NAME, "main")
        repo = Repo(ServedHarness(git, root / "storage"), NAME, count(1))
        sha = await repo.commit({"a": b"1"}, ref=MAIN)
        assert await git.resolve(NAME, MAIN) == sha
        assert left[0] < 0
        git.close()
        await channel.close()


# The local store.


def delete_store(store: Path) -> None:
    shutil.rmtree(store)


def delete_objects(store: Path) -> None:
    for path in (store / "objects").glob("??/*"):
        path.unlink()


def delete_trees_below(store: Path) -> None:
    """What is left says that all is there: the roots, but not what is in them."""
    repository = pygit2.Repository(str(store))
    trees = {str(oid): repository[oid] for oid in repository.odb if isinstance(repository[oid], pygit2.Tree)}
    below = {str(item.id) for tree in trees.values() if isinstance(tree, pygit2.Tree) for item in tree}
    for sha in below:
        (store / "objects" / sha[:2] / sha[2:]).unlink(missing_ok=True)


def overwrite_objects(store: Path) -> None:
    for path in (store / "objects").glob("??/*"):
        path.chmod(0o644)
        path.write_bytes(b"\xff" * path.stat().st_size)


def delete_head(store: Path) -> None:
    (store / "HEAD").unlink()


@pytest.mark.parametrize("damage", [delete_store, delete_objects, delete_trees_below, overwrite_objects, delete_head])
async def test_a_damaged_store_is_filled_anew(stage: Stage, damage: Callable[[Path], None]) -> None:
    base = stage.plant({"d/f": plain(LINES), "e/g": plain(b"1")}, ref=MAIN)
    one, two = stage.plant({"d/f": plain(TOP)}, (base,)), stage.plant({"d/f": plain(BOTTOM), "e/h": plain(b"1")}, (base,))
    expected = await stage.git.trial_merge(NAME, one, two)
    assert expected == await stage.local.trial_merge(NAME, one, two)
    patches = await stage.git.diff(NAME, base, two)

    def spoil() -> None:
        [store] = [path for path in stage.objects.iterdir() if not path.name.startswith(".")]
        damage(store)

    spoil()
    assert await stage.git.trial_merge(NAME, one, two) == expected
    spoil()
    assert await stage.git.diff(NAME, base, two) == patches
    spoil()
    sha = await stage.git.commit_files(
        NAME, ref=MAIN, expected_old=base, parent=base, changes=[MoveFile("d/f", "z")], author=ANN, message="m"
    )
    spoil()
    assert await stage.git.export(NAME, sha, stage.root / "out") == 2
    assert (stage.root / "out" / "z").read_bytes() == LINES


async def test_a_store_from_before_the_last_start_of_the_machine_is_filled_anew(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = stage.plant({"a": plain(b"1")})
    assert await stage.git.export(NAME, sha, stage.root / "before") == 1
    objects = set(stage.objects.glob("*/objects/??/*"))
    for path in objects:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-3])
    monkeypatch.setattr(gitaly_objects, "boot_id", lambda: "another")
    assert await stage.git.export(NAME, sha, stage.root / "after") == 1
    assert (stage.root / "after" / "a").read_bytes() == b"1"


async def test_the_cache_stays_within_its_limit_and_every_answer_is_right(stage: Stage) -> None:
    git = stage.fresh(cache_bytes=50_000)
    for number in range(6):
        name = f"team/{number}.git"
        await git.create_repository(name, "main")
        repo = Repo(ServedHarness(git, stage.root / "storage"), name, count(1))
        noise = bytes((number * 7 + position * position) % 251 for position in range(20_000))
        sha = repo.plant({"a": plain(noise), "b": plain(noise[::-1])})
        assert await git.export(name, sha, stage.root / f"out{number}") == 2
        held = sum(path.stat().st_size for path in stage.objects.rglob("*") if path.is_file())
        assert held < 150_000
    git.close()


async def test_a_tree_comes_by_its_missing_folders_or_whole_and_is_the_same(stage: Stage) -> None:
    many: dict[str, tuple[int, bytes]] = {f"d{number}/e/f{number}": plain(b"%d" % number) for number in range(40)}
    first = stage.plant(many | {"caf\udce9/\udcff": plain(b"x")})
    second = stage.plant(many | {"d3/e/f3": plain(b"changed")}, (first,))
    empty = stage.harness.put(NAME, "tree", b"")
    tree = stage.harness.put(NAME, "tree", b"40000 empty\0" + bytes.fromhex(empty))
    person = "A <a@b.c> 1714557600 +0000"
    odd = stage.harness.put(NAME, "commit", f"tree {tree}\nauthor {person}\ncommitter {person}\n\nodd\n".encode())
    for commit in (first, second, odd):
        for recursive in (False, True):
            listed = await stage.git.list_tree(NAME, commit, recursive=recursive)
            assert listed == await stage.local.list_tree(NAME, commit, recursive=recursive)
    assert await stage.git.changed_paths(NAME, first, second) == await stage.local.changed_paths(NAME, first, second)


async def test_a_blob_is_found_by_its_id_alone_whatever_was_looked_at_before(stage: Stage) -> None:
    sha = stage.plant({"a": plain(b"hello")})
    git = stage.fresh()
    assert await git.read_blob(NAME, blob_id(b"hello")) == b"hello"
    assert await git.read_file(NAME, sha, "a") == await stage.local.read_file(NAME, sha, "a")
    git.close()


async def test_large_and_small_blobs_come_in_pieces_and_are_whole(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gitaly_ops_session, "BATCH_BYTES", 200_000)
    data = {"a": b"", "b": b"x" * 500_000, "c": b"y" * 199_999, "d": b"z" * 200_001, "e": b"1", "f": b"w" * 150_000, "g": b"2"}
    sha = stage.plant({path: plain(content) for path, content in data.items()})
    assert await stage.git.export(NAME, sha, stage.root / "out") == len(data)
    assert {path.name: path.read_bytes() for path in (stage.root / "out").iterdir()} == data


async def test_a_large_file_is_written_in_pieces(stage: Stage) -> None:
    parent = stage.plant({"a": plain(b"1")}, ref=MAIN)
    data = bytes(range(256)) * 3000
    sha = await stage.commit([WriteFile("big", data)], parent, ref=MAIN)
    assert await stage.read(sha, "big") == data
    assert set(stage.writes) == {"UserCommitFiles"}


# Histories with several best common ancestors.


def crossed(
    stage: Stage, base: Files, left: Files, right: Files, merged: tuple[Files, Files], tips: tuple[Files, Files]
) -> list[str]:
    start = stage.plant(base)
    sides = (stage.plant(left, (start,)), stage.plant(right, (start,)))
    ours, theirs = stage.plant(merged[0], sides), stage.plant(merged[1], sides[::-1])
    return [stage.plant(tips[0], (ours,)), stage.plant(tips[1], (theirs,))]


BOTH = TOP.replace(b"line 18\n", b"bottom\n")
NINE = BOTH.replace(b"line 9\n", b"nine\n")
OTHER = LINES.replace(b"line 1\n", b"other\n")
CROSSED: dict[str, tuple[Files, Files, Files, tuple[Files, Files], tuple[Files, Files]]] = {
    "bases that merge": (
        {"f": plain(LINES)},
        {"f": plain(TOP)},
        {"f": plain(BOTTOM)},
        ({"f": plain(BOTH)}, {"f": plain(BOTH)}),
        ({"f": plain(NINE)}, {"f": plain(BOTH.replace(b"top\n", b"TOP\n"))}),
    ),
    "bases whose contents clash": (
        {"f": plain(LINES)},
        {"f": plain(TOP)},
        {"f": plain(OTHER)},
        ({"f": plain(TOP)}, {"f": plain(OTHER)}),
        ({"f": plain(TOP.replace(b"line 9\n", b"nine\n"))}, {"f": plain(OTHER)}),
    ),
    "bases of which one deletes what the other changes": (
        {"f": plain(LINES), "g": plain(b"1")},
        {"f": plain(TOP), "g": plain(b"1")},
        {"g": plain(b"1")},
        ({"f": plain(TOP), "g": plain(b"1")}, {"g": plain(b"1")}),
        ({"f": plain(NINE), "g": plain(b"2")}, {"g": plain(b"1"), "h": plain(b"1")}),
    ),
    "bases that move and change": (
        {"f": plain(LINES)},
        {"d/f": plain(LINES)},
        {"f": plain(TOP)},
        ({"d/f": plain(TOP)}, {"d/f": plain(TOP)}),
        ({"d/f": plain(BOTH)}, {"d/f": plain(TOP), "x": plain(b"")}),
    ),
}


@pytest.mark.parametrize("case", CROSSED)
@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
async def test_a_crossed_history_merges_as_it_does_locally(stage: Stage, case: str, turned: bool) -> None:
    one, two = crossed(stage, *CROSSED[case])[:: -1 if turned else 1]
    assert await stage.git.trial_merge(NAME, one, two) == await stage.local.trial_merge(NAME, one, two)
    arguments: dict[str, Any] = {"ours": one, "theirs": two, "author": ANN, "message": "m"}
    made = await stage.git.merge(NAME, ref=MAIN, expected_old=None, **arguments)
    assert made == await stage.local.merge(NAME, ref="refs/heads/local", expected_old=None, **arguments)


async def test_three_best_common_ancestors_and_a_cross_below_a_cross_merge_as_they_do_locally(stage: Stage) -> None:
    def texts(**lines: bytes) -> Files:
        content = LINES
        for number, line in lines.items():
            content = content.replace(b"line %d\n" % int(number[1:]), line + b"\n")
        return {"f": plain(content)}

    start = stage.plant(texts())
    bases = [stage.plant(texts(**{f"n{number}": b"x"}), (start,)) for number in (2, 8, 14)]
    everything = texts(n2=b"x", n8=b"x", n14=b"x")
    ours, theirs = stage.plant(everything, tuple(bases)), stage.plant(everything, tuple(bases[::-1]))
    one = stage.plant(texts(n2=b"x", n8=b"x", n14=b"x", n5=b"ours"), (ours,))
    two = stage.plant(texts(n2=b"y", n8=b"x", n14=b"x"), (theirs,))
    assert await stage.git.trial_merge(NAME, one, two) == await stage.local.trial_merge(NAME, one, two)
    upper, lower = stage.plant(everything, (one, two)), stage.plant(everything, (two, one))
    three, four = stage.plant(texts(n17=b"z"), (upper,)), stage.plant(texts(n11=b"w"), (lower,))
    assert await stage.git.trial_merge(NAME, three, four) == await stage.local.trial_merge(NAME, three, four)


async def test_a_message_that_the_server_cuts_short_is_not_replayed(stage: Stage) -> None:
    base = stage.plant({"a": plain(b"1")})
    onto = stage.plant({"a": plain(b"1"), "b": plain(b"1")}, (base,))
    who = Signature(ANN.name, ANN.email, ANN.when)
    head = await stage.local.commit_files(
        NAME, ref=SIDE, expected_old=None, parent=base, changes=[WriteFile("c", b"")], author=who, message="x" * 100_000
    )
    with pytest.raises(GitError, match="whole message"):
        await stage.git.rebase(NAME, ref=MAIN, expected_old=None, head=head, onto=onto, committer=BOB)


async def test_the_adapter_says_how_it_works_and_refuses_when_it_is_closed(stage: Stage) -> None:
    sha = stage.plant({"a": plain(b"1")})
    health = await stage.git.health()
    assert (health.backend, health.mode) == ("gitaly", "operations")
    git = stage.fresh()
    git.close()
    with pytest.raises(GitError, match="closed"):
        await git.list_tree(NAME, sha)

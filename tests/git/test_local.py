"""What only repositories on a disk can get wrong."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import IO

import pygit2
import pytest
from git_harness import ANN, MAIN, LocalHarness, Repo

from conman.git import local_refs
from conman.git.adapter import GitError, ObjectMissing, RefUpdate, RepositoryExists, RepositoryMissing, StaleRef, WriteFile
from conman.git.local import LocalGit
from conman.git.local_repo import TRANSLATED, translated

RACER = Path(__file__).with_name("ref_racer.py")
TAG = "refs/tags/r1"


@pytest.fixture
async def repo(tmp_path: Path) -> AsyncIterator[Repo]:
    """A repository of the local adapter alone."""
    harness = LocalHarness(tmp_path / "storage")
    await harness.git.create_repository("app.git", "main")
    yield Repo(harness, "app.git", count(1))
    harness.git.close()


def folder(repo: Repo) -> Path:
    assert isinstance(repo.harness, LocalHarness)
    return repo.harness.root / repo.name


def git(repo: Repo, *arguments: str) -> str:
    """Run the `git` program on the repository."""
    done = subprocess.run(["git", *arguments], cwd=folder(repo), capture_output=True, text=True, check=True)
    return done.stdout


class Racer:
    """The other process."""

    def __init__(self, repo: Repo, *arguments: str) -> None:
        command = [sys.executable, os.fspath(RACER), os.fspath(folder(repo).parent), repo.name, *arguments]
        root = Path(__file__).parents[2]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.fspath(root)}
        )

    def pipes(self) -> tuple[IO[str], IO[str]]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        return self.process.stdin, self.process.stdout

    def tell(self, *words: str) -> None:
        to, _ = self.pipes()
        to.write(" ".join(words) + "\n")
        to.flush()

    def hear(self) -> str:
        _, answers = self.pipes()
        return answers.readline().strip()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in self.pipes():
            pipe.close()


@pytest.fixture
def racers(repo: Repo) -> Iterator[list[Racer]]:
    both = [Racer(repo, "race") for _ in range(2)]
    yield both
    for racer in both:
        racer.end()


async def test_of_two_processes_that_move_one_ref_from_the_same_value_one_wins(repo: Repo, racers: list[Racer]) -> None:
    shas = [await repo.commit({"a": b"%d" % number}) for number in range(41)]
    head, wins = "-", 0
    for turn in range(20):
        rivals = shas[2 * turn : 2 * turn + 2]
        for racer, rival in zip(racers, rivals, strict=True):
            racer.tell(MAIN, head, rival)
        answers = [racer.hear() for racer in racers]
        assert sorted(answers) == ["stale", "won"]
        head = rivals[answers.index("won")]
        assert await repo.git.resolve(repo.name, MAIN) == head
        wins += 1
    assert wins == 20


async def test_two_processes_and_this_one_lose_no_move(repo: Repo, racers: list[Racer]) -> None:
    """Each moves the ref along a chain as often as it can: the moves that were won are exactly the chain."""
    chain = [await repo.commit({"a": b"0"}, ref=MAIN)]
    for number in range(1, 31):
        chain.append(await repo.commit({"a": b"%d" % number}, chain[-1]))
    for racer in racers:
        for old, new in pairwise(chain):
            racer.tell(MAIN, old, new)
    won = 0
    for old, new in pairwise(chain):
        try:
            await repo.git.update_refs(repo.name, [RefUpdate(MAIN, old, new)])
            won += 1
        except StaleRef:
            continue
    won += sum(racer.hear() == "won" for racer in racers for _ in chain[1:])
    head = await repo.git.resolve(repo.name, MAIN)
    assert head is not None
    assert won == chain.index(head)


async def test_a_process_killed_at_any_moment_leaves_both_refs_alike_and_unlocked(repo: Repo) -> None:
    one, two = await repo.commit({"a": b"1"}), await repo.commit({"a": b"2"})
    await repo.git.update_refs(repo.name, [RefUpdate(MAIN, None, one), RefUpdate(TAG, None, one)])
    for moves in range(1, 11):
        racer = Racer(repo, "hammer", one, two, MAIN, TAG)
        for _ in range(moves):
            assert racer.hear() == "moved"
        racer.end()
        probe = f"refs/heads/probe{moves}"
        await repo.git.update_refs(repo.name, [RefUpdate(probe, None, one)])
        refs = await repo.git.list_refs(repo.name, "refs/")
        assert refs[MAIN] == refs[TAG]
        await repo.git.update_refs(repo.name, [RefUpdate(MAIN, refs[MAIN], one), RefUpdate(TAG, refs[TAG], one)])
    assert list(folder(repo).rglob("refs/**/*.lock")) == []


@pytest.mark.parametrize(
    ("note", "finished"),
    [
        (b'0[["refs/heads/main","%o","%n"],["refs/tags/r1",null,"%n"]]', False),
        (b'1[["refs/heads/main","%o","%n"],["refs/tags/r1",null,"%n"]]', True),
    ],
    ids=["undecided", "decided"],
)
async def test_the_next_to_move_a_ref_clears_up_after_a_dead_one(repo: Repo, note: bytes, finished: bool) -> None:
    one = await repo.commit({"a": b"1"}, ref=MAIN)
    two = await repo.commit({"a": b"2"}, one)
    for name in (MAIN, TAG):
        (folder(repo) / f"{name}.lock").write_text(two)
    (folder(repo) / "conman-refs.lock").write_bytes(note.replace(b"%o", one.encode()).replace(b"%n", two.encode()))
    await repo.git.update_refs(repo.name, [RefUpdate("refs/heads/other", None, one)])
    assert list(folder(repo).rglob("refs/**/*.lock")) == []
    assert await repo.git.resolve(repo.name, MAIN) == (two if finished else one)
    assert await repo.git.resolve(repo.name, TAG) == (two if finished else None)


async def test_a_decided_deletion_of_a_dead_one_is_finished(repo: Repo) -> None:
    one = await repo.commit({"a": b"1"}, ref=MAIN)
    (folder(repo) / "packed-refs.lock").write_text("")
    (folder(repo) / "conman-refs.lock").write_text(f'1[["{MAIN}","{one}",null]]')
    await repo.git.update_refs(repo.name, [RefUpdate(TAG, None, one)])
    assert await repo.git.resolve(repo.name, MAIN) is None


async def test_a_torn_note_is_forgotten(repo: Repo) -> None:
    one = await repo.commit({"a": b"1"}, ref=MAIN)
    (folder(repo) / "conman-refs.lock").write_bytes(b'1[["refs/heads/main","12')
    await repo.git.update_refs(repo.name, [RefUpdate(TAG, None, one)])
    assert (folder(repo) / "conman-refs.lock").read_bytes() == b""


async def test_a_ref_that_another_program_holds_may_be_tried_again_later(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_refs, "LOCK_PATIENCE", 0.02)
    one = await repo.commit({"a": b"1"}, ref=MAIN)
    two = await repo.commit({"a": b"2"}, one)
    lock = folder(repo) / f"{MAIN}.lock"
    lock.touch()
    with pytest.raises(GitError) as held:
        await repo.git.update_refs(repo.name, [RefUpdate(TAG, None, two), RefUpdate(MAIN, one, two)])
    assert held.value.safe_to_repeat
    assert not isinstance(held.value, StaleRef)
    assert await repo.git.resolve(repo.name, TAG) is None
    with pytest.raises(StaleRef):
        await repo.git.update_refs(repo.name, [RefUpdate(MAIN, two, one)])
    assert lock.exists()


@pytest.mark.parametrize(("age", "cleared"), [(local_refs.ABANDONED_AFTER - 30, False), (local_refs.ABANDONED_AFTER + 30, True)])
async def test_a_lock_of_a_dead_program_is_cleared_when_it_is_old(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, age: float, cleared: bool
) -> None:
    monkeypatch.setattr(local_refs, "LOCK_PATIENCE", 0.02 if not cleared else 5.0)
    one = await repo.commit({"a": b"1"}, ref=MAIN)
    two = await repo.commit({"a": b"2"}, one)
    lock = folder(repo) / f"{MAIN}.lock"
    lock.touch()
    os.utime(lock, (time.time() - age,) * 2)
    move = repo.git.update_refs(repo.name, [RefUpdate(MAIN, one, two)])
    if cleared:
        await move
    else:
        with pytest.raises(GitError):
            await move
    assert await repo.git.resolve(repo.name, MAIN) == (two if cleared else one)


async def test_a_repository_whose_refs_another_process_holds_may_be_tried_again_later(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await repo.commit({"a": b"1"})
    deadline = time.monotonic() + 60
    with local_refs._own_lock("test", folder(repo), deadline):
        monkeypatch.setattr(local_refs, "LOCK_PATIENCE", 0.02)
        with pytest.raises(GitError) as held:
            await repo.git.update_refs(repo.name, [RefUpdate(MAIN, None, one)])
    assert held.value.safe_to_repeat
    await repo.git.update_refs(repo.name, [RefUpdate(MAIN, None, one)])


async def test_a_swap_that_fails_on_the_way_is_taken_back(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second ref can't be written: the first is put back."""
    one = await repo.commit({"a": b"1"}, ref=MAIN)
    two = await repo.commit({"a": b"2"}, one)
    await repo.git.update_refs(repo.name, [RefUpdate("refs/heads/x", None, one)])
    commit = pygit2.repository.ReferenceTransaction.commit
    commits = count(1)

    def failing(self: object) -> None:
        if next(commits) == 2:
            raise pygit2.GitError("no space left on device")
        commit(self)  # type: ignore[arg-type]

    monkeypatch.setattr(pygit2.repository.ReferenceTransaction, "commit", failing)
    with pytest.raises(GitError) as failed:
        await repo.git.update_refs(
            repo.name, [RefUpdate("refs/heads/x", one, two), RefUpdate(MAIN, one, two), RefUpdate(TAG, None, two)]
        )
    assert failed.value.safe_to_repeat
    assert await repo.git.list_refs(repo.name, "refs/heads/main") == {MAIN: one}
    assert await repo.git.resolve(repo.name, "refs/heads/x") == one
    assert await repo.git.resolve(repo.name, TAG) is None


async def test_packed_refs_and_objects_are_as_good_as_loose_ones(repo: Repo) -> None:
    one = await repo.commit({"a": b"1"}, ref=MAIN)
    await repo.git.update_refs(repo.name, [RefUpdate("refs/heads/a/b", None, one), RefUpdate(TAG, None, one)])
    git(repo, "pack-refs", "--all")
    git(repo, "repack", "-adq")
    assert await repo.read(one, "a") == b"1"
    for name in ("refs/heads/a", "refs/heads/a/b/c"):
        with pytest.raises(GitError) as refused:
            await repo.git.update_refs(repo.name, [RefUpdate(name, None, one)])
        assert not isinstance(refused.value, StaleRef)
    with pytest.raises(StaleRef):
        await repo.git.update_refs(repo.name, [RefUpdate(TAG, None, one)])
    two = await repo.commit({"a": b"2"}, one, ref=MAIN)
    await repo.git.update_refs(repo.name, [RefUpdate(TAG, one, None)])
    assert git(repo, "rev-parse", MAIN).strip() == two
    assert git(repo, "tag").split() == []
    git(repo, "fsck", "--strict")


async def test_the_git_program_sees_what_was_made(repo: Repo) -> None:
    sha = await repo.commit({"dir/a": b"1"}, ref=MAIN)
    assert git(repo, "symbolic-ref", "HEAD").strip() == MAIN
    assert git(repo, "log", "--format=%H %an %aI %cn").strip() == f"{sha} {ANN.name} 2024-05-01T12:01:00+02:00 {ANN.name}"
    assert git(repo, "show", f"{sha}:dir/a") == "1"
    assert git(repo, "config", "core.bare").strip() == "true"
    assert git(repo, "fsck", "--strict") == ""


async def test_settings_of_the_user_and_the_machine_change_nothing(repo: Repo, tmp_path: Path) -> None:
    one = await repo.commit({".gitattributes": b"* -diff -merge\n*.txt eol=crlf\n", "a.txt": b"1\n2\n3\n4\n5\n"})
    ours = await repo.commit({"a.txt": b"x\n2\n3\n4\n5\n"}, one)
    theirs = await repo.commit({"a.txt": b"1\n2\n3\n4\ny\n"}, one)
    assert (await repo.git.trial_merge(repo.name, ours, theirs)).clean
    [diff] = await repo.git.diff(repo.name, one, ours)
    assert not diff.binary
    await repo.git.export(repo.name, one, tmp_path / "out")
    assert (tmp_path / "out/a.txt").read_bytes() == b"1\n2\n3\n4\n5\n"


async def test_a_link_out_of_the_storage_root_is_refused(repo: Repo, tmp_path: Path) -> None:
    root = folder(repo).parent
    outside = tmp_path / "outside"
    pygit2.init_repository(os.fspath(outside / "secret.git"), bare=True)
    (root / "link").symlink_to(outside)
    (root / "direct.git").symlink_to(outside / "secret.git")
    (root / "inside").symlink_to(root / "app.git")
    for path in ("link/secret.git", "direct.git"):
        for call in (
            repo.git.repository_exists(path),
            repo.git.list_refs(path, ""),
            repo.git.remove_repository(path),
            repo.git.create_repository(f"{path}/new.git", "main"),
        ):
            with pytest.raises(GitError) as refused:
                await call
            assert not isinstance(refused.value, RepositoryMissing)
    with pytest.raises(GitError):
        await repo.git.create_repository("link/new.git", "main")
    assert [path.name for path in outside.iterdir()] == ["secret.git"]
    assert await repo.git.repository_exists("inside")


async def test_what_is_no_bare_repository_is_none(repo: Repo) -> None:
    root = folder(repo).parent
    pygit2.init_repository(os.fspath(root / "worktree"))
    (root / "file").write_text("x")
    (root / "empty").mkdir()
    for path in ("worktree", "file", "empty", "app.git/objects", "file/x"):
        assert not await repo.git.repository_exists(path)
        with pytest.raises(RepositoryMissing):
            await repo.git.list_refs(path, "")
        with pytest.raises(RepositoryMissing):
            await repo.git.remove_repository(path)
    for path in ("worktree", "file", "empty"):
        with pytest.raises(RepositoryExists):
            await repo.git.create_repository(path, "main")
    with pytest.raises(GitError):
        await repo.git.create_repository("file/x", "main")


def test_what_a_crash_left_of_removed_repositories_is_swept_at_the_start(tmp_path: Path) -> None:
    (tmp_path / ".conman-removed-1/objects").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    LocalGit(tmp_path, threads=1).close()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


async def test_no_private_folder_stays_behind(repo: Repo) -> None:
    with pytest.raises(RepositoryExists):
        await repo.git.create_repository(repo.name, "main")
    await repo.git.remove_repository(repo.name)
    assert list(folder(repo).parent.iterdir()) == []


async def test_a_closed_adapter_refuses_calls(tmp_path: Path) -> None:
    adapter = LocalGit(tmp_path, threads=1)
    await adapter.health()
    adapter.close()
    with pytest.raises(GitError) as closed:
        await adapter.health()
    assert closed.value.safe_to_repeat


async def test_a_storage_root_that_is_gone_is_not_healthy(tmp_path: Path) -> None:
    adapter = LocalGit(tmp_path / "none", threads=1)
    with pytest.raises(GitError) as gone:
        await adapter.health()
    assert gone.value.operation == "health"
    adapter.close()


async def test_calls_run_side_by_side_up_to_the_number_of_threads(repo: Repo) -> None:
    sha = await repo.commit({f"f{number}": b"%d" % number for number in range(50)}, ref=MAIN)
    read = [repo.read(sha, f"f{number}") for number in range(50)]
    write = [repo.commit([WriteFile(f"g{number}", b"")], sha) for number in range(20)]
    results = await asyncio.gather(*read, *write)
    assert results[:50] == [b"%d" % number for number in range(50)]
    assert len(set(results[50:])) == 20


async def test_a_damaged_object_is_an_error_of_the_port(repo: Repo) -> None:
    sha = await repo.commit({"a": b"1"}, ref=MAIN)
    path = folder(repo) / "objects" / sha[:2] / sha[2:]
    path.chmod(0o644)
    path.write_bytes(b"rubbish")
    with pytest.raises(GitError):
        await repo.git.commit(repo.name, sha)


def test_every_error_of_the_library_has_its_translation() -> None:
    errors = [error for _, error in inspect.getmembers(pygit2, inspect.isclass) if issubclass(error, pygit2.GitError)]
    assert len(errors) >= 8
    assert set(errors) <= TRANSLATED.keys()
    bases = {base for error in errors for base in error.__mro__ if base not in (object, BaseException, Exception, LookupError)}
    assert bases <= TRANSLATED.keys()


@pytest.mark.parametrize("error", TRANSLATED, ids=lambda error: error.__name__)
def test_only_errors_of_the_port_leave_the_adapter(error: type[Exception]) -> None:
    kind, safe = TRANSLATED[error]
    with pytest.raises(kind) as translation, translated("reading"):
        raise error("something")
    assert translation.value.operation == "reading"
    assert translation.value.safe_to_repeat == safe
    assert "something" in str(translation.value)
    assert isinstance(translation.value.__cause__, error)


def test_the_errors_of_the_port_pass_untouched() -> None:
    with pytest.raises(StaleRef) as stale, translated("outer"):
        raise StaleRef("inner", MAIN)
    assert stale.value.operation == "inner"


def test_an_error_that_the_map_knows_only_by_its_base_is_translated_too() -> None:
    class Missing(KeyError):
        pass

    with pytest.raises(ObjectMissing), translated("outer"):
        raise Missing("x")


async def test_folders_within_folders_without_end_are_an_error_of_the_port(repo: Repo, tmp_path: Path) -> None:
    inner = repo.harness.put(repo.name, "tree", b"")
    for _ in range(3000):
        inner = repo.harness.put(repo.name, "tree", b"40000 d\0" + bytes.fromhex(inner))
    person = "A <a@b.c> 1714557600 +0000"
    body = f"tree {inner}\nauthor {person}\ncommitter {person}\n\ndeep\n"
    sha = repo.harness.put(repo.name, "commit", body.encode())
    with pytest.raises(GitError):
        await repo.git.export(repo.name, sha, tmp_path / "out")

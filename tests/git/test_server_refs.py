"""RepositoryService and RefService of the Git server, over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode
from server_harness import MAIN, MISSING, NAME, REPOSITORY, ZERO, Calls, calling_with_repository, code, everything, git, refusal

from conman.git.proto import gitaly_pb2 as pb

PRIVATE = "refs/conman/snapshots/1"


@pytest.fixture
async def calls(tmp_path: Path) -> AsyncIterator[Calls]:
    async with calling_with_repository(tmp_path / "storage") as made:
        yield made


def repository(path: str = NAME, storage: str = "default") -> pb.Repository:
    return pb.Repository(storage_name=storage, relative_path=path)


def update(ref: str, old: str, new: str) -> pb.UpdateReferencesRequest.Update:
    return pb.UpdateReferencesRequest.Update(reference=ref.encode(), old_object_id=old.encode(), new_object_id=new.encode())


def moves(*updates: pb.UpdateReferencesRequest.Update) -> list[pb.UpdateReferencesRequest]:
    return [pb.UpdateReferencesRequest(repository=REPOSITORY, updates=updates)]


async def test_a_repository_exists_from_its_creation_to_its_removal(calls: Calls) -> None:
    new = repository("other/new.git")

    async def exists() -> bool:
        return (await calls.repositories.RepositoryExists(pb.RepositoryExistsRequest(repository=new))).exists

    assert not await exists()
    await calls.repositories.CreateRepository(pb.CreateRepositoryRequest(repository=new, default_branch=b"trunk"))
    assert await exists()
    assert (calls.root / "other/new.git/HEAD").read_text() == "ref: refs/heads/trunk\n"
    again = calls.repositories.CreateRepository(pb.CreateRepositoryRequest(repository=new))
    assert await code(again) is StatusCode.ALREADY_EXISTS
    await calls.repositories.RemoveRepository(pb.RemoveRepositoryRequest(repository=new))
    assert not await exists()
    assert await code(calls.repositories.RemoveRepository(pb.RemoveRepositoryRequest(repository=new))) is StatusCode.NOT_FOUND


async def test_a_repository_of_sha_256_is_refused(calls: Calls) -> None:
    request = pb.CreateRepositoryRequest(repository=repository("x.git"), object_format=pb.OBJECT_FORMAT_SHA256)
    assert await code(calls.repositories.CreateRepository(request)) is StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "path", ["../team/app.git", "/etc", "team/../../x", "team//app.git", ".", "link/app.git", ".conman-making-x", "a\\b", ""]
)
async def test_a_path_that_is_not_below_the_root_is_refused_by_every_kind_of_call(calls: Calls, path: str) -> None:
    outside = calls.root.parent / "outside"
    (outside / "app.git").mkdir(parents=True)
    git(outside / "app.git", "init", "-q", "--bare")
    (calls.root / "link").symlink_to(outside)
    asked = repository(path)
    for call in (
        calls.repositories.RepositoryExists(pb.RepositoryExistsRequest(repository=asked)),
        calls.repositories.CreateRepository(pb.CreateRepositoryRequest(repository=asked)),
        calls.repositories.RemoveRepository(pb.RemoveRepositoryRequest(repository=asked)),
        calls.refs.FindLocalBranches(pb.FindLocalBranchesRequest(repository=asked)),
        calls.smart.InfoRefsUploadPack(pb.InfoRefsRequest(repository=asked)),
        calls.smart.PostReceivePack(iter([pb.PostReceivePackRequest(repository=asked)])),
        calls.diffs.RawDiff(pb.RawDiffRequest(repository=asked, left_commit_id="a", right_commit_id="b")),
    ):
        assert await code(call) is StatusCode.INVALID_ARGUMENT
    assert (outside / "app.git/HEAD").exists()


async def test_a_storage_of_another_name_is_refused(calls: Calls) -> None:
    for storage in ("", "other"):
        request = pb.RepositoryExistsRequest(repository=repository(storage=storage))
        assert await code(calls.repositories.RepositoryExists(request)) is StatusCode.INVALID_ARGUMENT


async def test_calls_about_a_repository_that_is_not_there_say_not_found(calls: Calls) -> None:
    asked = repository("team/none.git")
    for call in (
        calls.refs.FindBranch(pb.FindBranchRequest(repository=asked, name=b"main")),
        calls.refs.UpdateReferences(iter([pb.UpdateReferencesRequest(repository=asked, updates=[update(MAIN, "", MISSING)])])),
        calls.smart.InfoRefsReceivePack(pb.InfoRefsRequest(repository=asked)),
        calls.commits.ListCommits(pb.ListCommitsRequest(repository=asked, revisions=["main"])),
    ):
        assert await code(call) is StatusCode.NOT_FOUND


async def test_branches_are_listed_by_name_by_time_and_by_page(calls: Calls) -> None:
    old = calls.put({"a": b"1"}, ref="refs/heads/zebra")
    new = calls.put({"a": b"2"}, [old], ref="refs/heads/ant")
    calls.put({"a": b"3"}, [new], ref=PRIVATE)

    async def names(**given: Any) -> list[str]:
        request = pb.FindLocalBranchesRequest(repository=REPOSITORY, **given)
        pages = await everything(calls.refs.FindLocalBranches(request))
        return [branch.name.decode() for page in pages for branch in page.local_branches]

    assert await names() == ["refs/heads/ant", "refs/heads/zebra"]
    assert await names(sort_by=pb.FindLocalBranchesRequest.UPDATED_ASC) == ["refs/heads/zebra", "refs/heads/ant"]
    assert await names(sort_by=pb.FindLocalBranchesRequest.UPDATED_DESC) == ["refs/heads/ant", "refs/heads/zebra"]
    assert await names(pagination_params=pb.PaginationParameter(limit=1)) == ["refs/heads/ant"]
    after = pb.PaginationParameter(limit=5, page_token="refs/heads/ant")
    assert await names(pagination_params=after) == ["refs/heads/zebra"]
    lost = pb.FindLocalBranchesRequest(repository=REPOSITORY, pagination_params=pb.PaginationParameter(page_token="x", limit=1))
    assert await code(calls.refs.FindLocalBranches(lost)) is StatusCode.INVALID_ARGUMENT


async def test_a_listing_longer_than_a_message_comes_in_several(calls: Calls) -> None:
    sha = calls.put({"a": b"1"}, ref=MAIN)
    names = [f"refs/heads/made/{number:03}" for number in range(250)]
    await calls.refs.UpdateReferences(moves(*(update(name, ZERO, sha) for name in names)))
    pages = await everything(calls.refs.FindLocalBranches(pb.FindLocalBranchesRequest(repository=REPOSITORY)))
    assert len(pages) > 1
    assert [branch.name.decode() for page in pages for branch in page.local_branches] == [*names, MAIN]


async def test_a_branch_is_found_by_any_form_of_its_name_and_tells_its_commit(calls: Calls) -> None:
    sha = calls.put({"a": b"1"}, ref=MAIN)
    for name in (b"main", b"heads/main", b"refs/heads/main"):
        found = await calls.refs.FindBranch(pb.FindBranchRequest(repository=REPOSITORY, name=name))
        assert (found.branch.name, found.branch.target_commit.id) == (b"main", sha)
    author = found.branch.target_commit.author
    assert (author.name, author.timezone) == (b"Bob Beispiel", b"-0530")
    none = await calls.refs.FindBranch(pb.FindBranchRequest(repository=REPOSITORY, name=b"none"))
    assert not none.HasField("branch")
    assert await code(calls.refs.FindBranch(pb.FindBranchRequest(repository=REPOSITORY))) is StatusCode.INVALID_ARGUMENT


async def test_tags_are_found_and_listed_with_what_they_hold(calls: Calls) -> None:
    sha = calls.put({"a": b"1"}, ref=MAIN)
    git(calls.folder, "tag", "v1.9", sha)
    git(calls.folder, "-c", "user.name=Tia", "-c", "user.email=t@example.org", "tag", "-a", "-m", "words", "v1.10", sha)
    pages = await everything(calls.refs.FindAllTags(pb.FindAllTagsRequest(repository=REPOSITORY)))
    assert [tag.name for page in pages for tag in page.tags] == [b"v1.10", b"v1.9"]
    by_version = pb.FindAllTagsRequest.SortBy(key=pb.FindAllTagsRequest.SortBy.VERSION_REFNAME)
    pages = await everything(calls.refs.FindAllTags(pb.FindAllTagsRequest(repository=REPOSITORY, sort_by=by_version)))
    assert [tag.name for page in pages for tag in page.tags] == [b"v1.9", b"v1.10"]
    annotated = (await calls.refs.FindTag(pb.FindTagRequest(repository=REPOSITORY, tag_name=b"v1.10"))).tag
    assert (annotated.message, annotated.tagger.name, annotated.target_commit.id) == (b"words\n", b"Tia", sha)
    assert annotated.id == calls.ref("refs/tags/v1.10") != sha
    light = (await calls.refs.FindTag(pb.FindTagRequest(repository=REPOSITORY, tag_name=b"v1.9"))).tag
    assert light.id == light.target_commit.id == sha
    assert await code(calls.refs.FindTag(pb.FindTagRequest(repository=REPOSITORY, tag_name=b"v2"))) is StatusCode.NOT_FOUND


async def test_refs_are_listed_by_folder_by_wildcard_and_by_name(calls: Calls) -> None:
    sha = calls.put({"a": b"1"}, ref=MAIN)
    for name in (PRIVATE, "refs/conman/snapshots/2", "refs/tags/v1", "refs/headstone"):
        calls.open().references.create(name, sha)

    async def listed(*patterns: bytes) -> list[str]:
        answers = await everything(calls.refs.ListRefs(pb.ListRefsRequest(repository=REPOSITORY, patterns=patterns)))
        assert all(ref.target == sha for answer in answers for ref in answer.references)
        return [ref.name.decode() for answer in answers for ref in answer.references]

    assert await listed(b"refs/conman/") == [PRIVATE, "refs/conman/snapshots/2"]
    assert await listed(b"refs/heads", b"refs/tags/v1") == [MAIN, "refs/tags/v1"]
    assert await listed(b"refs/*/main") == [MAIN]
    assert await listed(b"refs/none") == []
    assert await code(calls.refs.ListRefs(pb.ListRefsRequest(repository=REPOSITORY))) is StatusCode.INVALID_ARGUMENT


async def test_a_ref_exists_or_not_and_needs_its_full_name(calls: Calls) -> None:
    calls.put({"a": b"1"}, ref=PRIVATE)

    async def exists(ref: bytes) -> bool:
        return (await calls.refs.RefExists(pb.RefExistsRequest(repository=REPOSITORY, ref=ref))).value

    assert await exists(PRIVATE.encode())
    assert not await exists(b"refs/conman/none")
    assert (
        await code(calls.refs.RefExists(pb.RefExistsRequest(repository=REPOSITORY, ref=b"main"))) is StatusCode.INVALID_ARGUMENT
    )


async def test_several_refs_move_together_or_not_at_all(calls: Calls) -> None:
    one = calls.put({"a": b"1"}, ref=MAIN)
    two = calls.put({"a": b"2"}, [one])
    await calls.refs.UpdateReferences(moves(update(MAIN, one, two), update("refs/tags/r1", ZERO, two), update(PRIVATE, "", two)))
    assert (calls.ref(MAIN), calls.ref("refs/tags/r1"), calls.ref(PRIVATE)) == (two, two, two)
    lost = calls.refs.UpdateReferences(moves(update(PRIVATE, two, one), update(MAIN, one, two)))
    status, words = await refusal(lost)
    assert status is StatusCode.ABORTED
    assert MAIN in words
    assert calls.ref(PRIVATE) == two


async def test_updates_may_come_in_several_messages(calls: Calls) -> None:
    sha = calls.put({"a": b"1"}, ref=MAIN)
    first = pb.UpdateReferencesRequest(repository=REPOSITORY, updates=[update("refs/heads/a", ZERO, sha)])
    await calls.refs.UpdateReferences(iter([first, pb.UpdateReferencesRequest(updates=[update("refs/heads/b", ZERO, sha)])]))
    assert calls.ref("refs/heads/a") == calls.ref("refs/heads/b") == sha


async def test_malformed_updates_are_refused_and_missing_objects_not_found(calls: Calls) -> None:
    sha = calls.put({"a": b"1"}, ref=MAIN)
    for wrong in (
        moves(),
        moves(update("main", ZERO, sha)),
        moves(update(MAIN, "short", sha)),
        moves(update(MAIN, sha, "")),
        moves(update("refs/heads/a..b", ZERO, sha)),
        moves(update("refs/heads/a", ZERO, sha), update("refs/heads/a", ZERO, sha)),
        [pb.UpdateReferencesRequest(updates=[update("refs/heads/a", ZERO, sha)])],
        moves(update("refs/heads/a", ZERO, sha)) + moves(update("refs/heads/b", ZERO, sha)),
        [],
    ):
        assert await code(calls.refs.UpdateReferences(iter(wrong))) is StatusCode.INVALID_ARGUMENT
    assert await code(calls.refs.UpdateReferences(moves(update("refs/heads/a", ZERO, MISSING)))) is StatusCode.NOT_FOUND
    assert calls.ref("refs/heads/a") is None


async def test_a_ref_is_deleted_by_an_update_by_name_or_by_prefix(calls: Calls) -> None:
    sha = calls.put({"a": b"1"}, ref=MAIN)
    for name in ("refs/heads/a", "refs/heads/b", "refs/tags/c", "refs/tags/d"):
        calls.open().references.create(name, sha)
    await calls.refs.UpdateReferences(moves(update("refs/heads/a", sha, ZERO)))
    await calls.refs.DeleteRefs(pb.DeleteRefsRequest(repository=REPOSITORY, refs=[b"refs/heads/b", b"refs/heads/none"]))
    await calls.refs.DeleteRefs(pb.DeleteRefsRequest(repository=REPOSITORY, except_with_prefix=[b"refs/heads/", b"refs/made/"]))
    assert sorted(name for name in calls.open().references if not name.startswith("refs/made")) == [MAIN]
    for refs, kept in (([], []), ([b"refs/heads/a"], [b"refs/"]), ([b"main"], [])):
        request = pb.DeleteRefsRequest(repository=REPOSITORY, refs=refs, except_with_prefix=kept)
        assert await code(calls.refs.DeleteRefs(request)) is StatusCode.INVALID_ARGUMENT


async def test_of_many_that_swap_one_ref_at_once_exactly_one_wins(calls: Calls) -> None:
    base = calls.put({"a": b"0"}, ref=MAIN)
    heads = [calls.put({"a": bytes([48 + number])}, [base]) for number in range(1, 9)]

    async def swap(new: str) -> str | None:
        try:
            await calls.refs.UpdateReferences(moves(update(MAIN, base, new)))
        except Exception as error:  # noqa: BLE001 - looked at below
            assert getattr(error, "code", lambda: None)() is StatusCode.ABORTED
            return None
        return new

    won = [sha for sha in await asyncio.gather(*map(swap, heads)) if sha is not None]
    assert won == [calls.ref(MAIN)]
    calls.fsck()


async def test_a_ref_is_written_from_anywhere_or_only_from_where_it_is_expected(calls: Calls) -> None:
    one = calls.put({"a": b"1"}, ref=MAIN)
    two = calls.put({"a": b"2"}, [one], ref="refs/heads/two")

    def write(ref: str, revision: str, old: str = "") -> Any:
        request = pb.WriteRefRequest(
            repository=REPOSITORY, ref=ref.encode(), revision=revision.encode(), old_revision=old.encode()
        )
        return calls.repositories.WriteRef(request)

    await write(PRIVATE, one)
    await write(PRIVATE, "refs/heads/two")
    assert calls.ref(PRIVATE) == two
    assert await code(write(PRIVATE, one, one)) is StatusCode.FAILED_PRECONDITION
    await write(PRIVATE, one, two)
    assert calls.ref(PRIVATE) == one
    assert await code(write("refs/heads/new", one, MISSING)) is StatusCode.FAILED_PRECONDITION
    await write("refs/heads/new", one, ZERO)
    await write("HEAD", "refs/heads/new")
    assert (calls.folder / "HEAD").read_text() == "ref: refs/heads/new\n"
    for ref, revision in (("main", one), ("HEAD", one), ("refs/heads/x", "-n"), ("refs/heads/x", "")):
        assert await code(write(ref, revision)) is StatusCode.INVALID_ARGUMENT
    assert await code(write("refs/heads/x", "none")) is StatusCode.NOT_FOUND


async def test_the_merge_base_is_found_and_is_empty_for_strangers(calls: Calls) -> None:
    base = calls.put({"a": b"0"})
    one, two = calls.put({"a": b"1"}, [base], ref=MAIN), calls.put({"a": b"2"}, [base])
    stranger = calls.put({"b": b"0"})

    async def base_of(*revisions: str) -> str:
        request = pb.FindMergeBaseRequest(repository=REPOSITORY, revisions=[revision.encode() for revision in revisions])
        return (await calls.repositories.FindMergeBase(request)).base

    assert await base_of(one, two) == base
    assert await base_of("main", one) == one
    assert await base_of(one, two, stranger) == base
    assert await base_of(one, stranger) == ""
    assert await base_of(one, MISSING) == ""
    request = pb.FindMergeBaseRequest(repository=REPOSITORY, revisions=[one.encode()])
    assert await code(calls.repositories.FindMergeBase(request)) is StatusCode.INVALID_ARGUMENT

"""The calls of RefService: branches, tags and private refs, read and moved by compare-and-swap."""

from __future__ import annotations

import fnmatch
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import grpc
import pygit2

from conman.git.adapter import RefUpdate, StaleRef
from conman.git.checks import is_ref_name, is_sha
from conman.git.local_refs import list_refs, move_refs, ref_value
from conman.git.proto import gitaly_pb2 as pb
from conman.git.proto import gitaly_pb2_grpc as rpc
from conman.git.server_call import ZERO_SHA, Ground, Refused, batches, invalid, stale, text
from conman.git.server_messages import commit_message, tag_message

BRANCHES = "refs/heads/"
TAGS = "refs/tags/"
_FORCE_ATTEMPTS = 32
"""How often a move without an expected old value tries again when others move the same ref meanwhile."""

_Item = TypeVar("_Item")


class RefService(rpc.RefServiceServicer):
    """Branches, tags and private refs."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def FindBranch(self, request: pb.FindBranchRequest, context: object) -> pb.FindBranchResponse:
        """A branch by its short or full name; an empty answer when there is none."""
        name = text("name", request.name).removeprefix("refs/").removeprefix("heads/")
        if not name:
            raise invalid("empty branch name")

        def work(_: str, repository: pygit2.Repository) -> pb.FindBranchResponse:
            sha = list_refs(repository, BRANCHES).get(BRANCHES + name) if is_ref_name(BRANCHES + name) else None
            return pb.FindBranchResponse() if sha is None else pb.FindBranchResponse(branch=_branch(repository, name, sha))

        return await self._ground.on("find_branch", request.repository, work)

    async def FindLocalBranches(
        self, request: pb.FindLocalBranchesRequest, context: object
    ) -> AsyncIterator[pb.FindLocalBranchesResponse]:
        """All branches, with their full names."""

        def work(_: str, repository: pygit2.Repository) -> list[pb.Branch]:
            found = [_branch(repository, name, sha) for name, sha in list_refs(repository, BRANCHES).items()]
            if request.sort_by != pb.FindLocalBranchesRequest.NAME:
                newest_first = request.sort_by == pb.FindLocalBranchesRequest.UPDATED_DESC
                found.sort(key=lambda branch: branch.target_commit.committer.date.seconds, reverse=newest_first)
            return page(found, request, lambda branch: branch.name.decode())

        for batch in batches(await self._ground.on("find_local_branches", request.repository, work)):
            yield pb.FindLocalBranchesResponse(local_branches=batch)

    async def FindTag(self, request: pb.FindTagRequest, context: object) -> pb.FindTagResponse:
        """A tag by its short name. NOT_FOUND when there is none."""
        name = text("tag_name", request.tag_name)
        if not name:
            raise invalid("empty tag name")

        def work(_: str, repository: pygit2.Repository) -> pb.FindTagResponse:
            sha = ref_value(repository, TAGS + name) if is_ref_name(TAGS + name) else None
            if sha is None or not is_sha(sha):
                raise Refused(grpc.StatusCode.NOT_FOUND, f"tag {name!r} does not exist")
            return pb.FindTagResponse(tag=tag_message(repository, name.encode(), pygit2.Oid(hex=sha)))

        return await self._ground.on("find_tag", request.repository, work)

    async def FindAllTags(self, request: pb.FindAllTagsRequest, context: object) -> AsyncIterator[pb.FindAllTagsResponse]:
        """All tags, with their short names."""

        def work(_: str, repository: pygit2.Repository) -> list[pb.Tag]:
            found = [
                tag_message(repository, name.removeprefix(TAGS).encode(), pygit2.Oid(hex=sha))
                for name, sha in list_refs(repository, TAGS).items()
            ]
            if request.sort_by.key == pb.FindAllTagsRequest.SortBy.CREATORDATE:
                found.sort(key=_created)
            elif request.sort_by.key == pb.FindAllTagsRequest.SortBy.VERSION_REFNAME:
                found.sort(key=lambda tag: _version(tag.name.decode()))
            if request.sort_by.direction == pb.DESCENDING:
                found.reverse()
            return page(found, request, lambda tag: TAGS + tag.name.decode())

        for batch in batches(await self._ground.on("find_all_tags", request.repository, work)):
            yield pb.FindAllTagsResponse(tags=batch)

    async def RefExists(self, request: pb.RefExistsRequest, context: object) -> pb.RefExistsResponse:
        """Whether there is a ref of that full name."""
        ref = text("ref", request.ref)
        if not is_ref_name(ref):
            raise invalid(f"{ref!r} is not a full ref name")
        found = await self._ground.on("ref_exists", request.repository, lambda _, repository: ref_value(repository, ref))
        return pb.RefExistsResponse(value=found is not None)

    async def ListRefs(self, request: pb.ListRefsRequest, context: object) -> AsyncIterator[pb.ListRefsResponse]:
        """The refs that match a pattern, which is a full name, a folder of names, or has wildcards."""
        patterns = [text("patterns", pattern) for pattern in request.patterns]
        if not patterns:
            raise invalid("patterns must have at least one entry")

        def work(_: str, repository: pygit2.Repository) -> dict[str, str]:
            return list_refs(repository, "refs/")

        for batch in batches((await self._ground.on("list_refs", request.repository, work)).items()):
            matching = [(name, sha) for name, sha in batch if any(_matches(name, pattern) for pattern in patterns)]
            references = [pb.ListRefsResponse.Reference(name=name.encode(), target=sha) for name, sha in matching]
            if references:
                yield pb.ListRefsResponse(references=references)

    async def UpdateReferences(
        self, request_iterator: AsyncIterator[pb.UpdateReferencesRequest], context: object
    ) -> pb.UpdateReferencesResponse:
        """Move several refs, all or none. ABORTED when one is not where it was expected, or is locked."""
        repository = None
        updates: list[RefUpdate] = []
        unguarded: set[str] = set()
        async for request in request_iterator:
            if repository is None:
                repository = request.repository
            elif request.HasField("repository"):
                raise invalid("repository set in a later request")
            if not request.updates:
                raise invalid("no updates given")
            for update in request.updates:
                made = ref_update(update)
                updates.append(made)
                if not update.old_object_id:
                    unguarded.add(made.ref)
        if repository is None:
            raise invalid("no request")
        try:
            await self._ground.on("update_references", repository, forced, updates, unguarded)
        except StaleRef as error:
            raise Refused(grpc.StatusCode.ABORTED, str(error)) from error
        return pb.UpdateReferencesResponse()

    async def DeleteRefs(self, request: pb.DeleteRefsRequest, context: object) -> pb.DeleteRefsResponse:
        """Delete the refs that are named, or all but those with a prefix; one that does not exist is no error."""
        names = [text("refs", ref) for ref in request.refs]
        kept = tuple(text("except_with_prefix", prefix) for prefix in request.except_with_prefix)
        if bool(names) == bool(kept):
            raise invalid("either refs or except_with_prefix, not both")
        for name in names:
            if not is_ref_name(name):
                raise invalid(f"{name!r} is not a full ref name")

        def work(operation: str, repository: pygit2.Repository) -> None:
            present = list_refs(repository, "refs/")
            doomed = [name for name in present if not name.startswith(kept)] if kept else [n for n in names if n in present]
            forced(operation, repository, [RefUpdate(name, None, None) for name in dict.fromkeys(doomed)], set(doomed))

        try:
            await self._ground.on("delete_refs", request.repository, work)
        except StaleRef as error:
            raise Refused(grpc.StatusCode.ABORTED, str(error)) from error
        return pb.DeleteRefsResponse()


def branch_ref(name: bytes) -> str:
    """The full ref of a branch's name; a full name, such as that of a private ref, is taken as it is.

    Raises `Refused` for what is no name of a ref.
    """
    if not name:
        raise invalid("empty branch name")
    shown = text("branch", name)
    ref = shown if shown.startswith("refs/") else BRANCHES + shown
    if not is_ref_name(ref):
        raise invalid(f"{shown!r} is not the name of a branch")
    return ref


def ref_update(update: pb.UpdateReferencesRequest.Update) -> RefUpdate:
    """One compare-and-swap of a request; its old value counts only when the request has one."""
    ref = text("reference", update.reference)
    old, new = (text("object id", value) for value in (update.old_object_id, update.new_object_id))
    if not is_ref_name(ref):
        raise invalid(f"{ref!r} is not a full ref name")
    if not is_sha(new) or (old and not is_sha(old)):
        raise invalid(f"{ref}: an object id is not a sha")
    return RefUpdate(ref, None if old in ("", ZERO_SHA) else old, None if new == ZERO_SHA else new)


def forced(operation: str, repository: pygit2.Repository, updates: Sequence[RefUpdate], unguarded: set[str]) -> None:
    """Move all refs or none; the refs in `unguarded` are moved from wherever they are. Raises `StaleRef` for the others."""
    for attempt in range(_FORCE_ATTEMPTS):
        current = [
            replace(update, old=ref_value(repository, update.ref)) if update.ref in unguarded else update for update in updates
        ]
        try:
            move_refs(operation, repository, current)
            return
        except StaleRef as error:
            if error.ref not in unguarded or attempt == _FORCE_ATTEMPTS - 1:
                raise


def place(operation: str, repository: pygit2.Repository, ref: str, old: str | None, new: str | None) -> None:
    """Move one ref; FAILED_PRECONDITION when it is not at `old`."""
    try:
        move_refs(operation, repository, [RefUpdate(ref, old, new)])
    except StaleRef as error:
        raise stale(f"could not update {ref}: it is not at {old or ZERO_SHA}; look again and repeat") from error


def page(items: list[_Item], request: Any, token_of: Callable[[_Item], str]) -> list[_Item]:
    """The page of a listing that a request's `pagination_params` ask for: after the item of the token, up to the limit.

    No parameters, or a negative limit: all. Raises `Refused` for a token that no item has.
    """
    if not request.HasField("pagination_params"):
        return items
    parameters: pb.PaginationParameter = request.pagination_params
    start = 0
    if parameters.page_token:
        tokens = [token_of(item) for item in items]
        if parameters.page_token not in tokens:
            raise invalid(f"no item has the page token {parameters.page_token!r}")
        start = tokens.index(parameters.page_token) + 1
    return items[start:] if parameters.limit < 0 else items[start : start + parameters.limit]


def _branch(repository: pygit2.Repository, name: str, sha: str) -> pb.Branch:
    target = repository[sha]
    commit = commit_message(target) if isinstance(target, pygit2.Commit) else None
    return pb.Branch(name=name.encode(), target_commit=commit)


def _created(tag: pb.Tag) -> int:
    return tag.tagger.date.seconds if tag.HasField("tagger") else tag.target_commit.committer.date.seconds


def _version(name: str) -> list[tuple[bool, int, str]]:
    """A sort key in which numbers count as numbers: `v1.9` before `v1.10`."""
    parts: list[tuple[bool, int, str]] = []
    word = ""
    for character in name:
        if word and character.isdigit() != word[-1].isdigit():
            parts.append(_part(word))
            word = ""
        word += character
    return [*parts, _part(word)]


def _part(word: str) -> tuple[bool, int, str]:
    return (False, int(word), "") if word.isascii() and word.isdigit() else (True, 0, word)


def _matches(name: str, pattern: str) -> bool:
    """Whether a ref matches as `git for-each-ref` has it: by its full name, by a folder of it, or by wildcards."""
    if name == pattern or name.startswith(f"{pattern.rstrip('/')}/"):
        return True
    names, patterns = name.split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(map(fnmatch.fnmatchcase, names, patterns))

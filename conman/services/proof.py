"""What a proof of a release is made of, read from the records, the audit and the repository (`domain/proof.py` checks it).

docs/adr/0036-a-release-proves-itself.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pygit2
from pymongo import ASCENDING

from conman import __version__
from conman.domain.proof import FORMAT, VERSION, Findings, git_id
from conman.domain.release import Member
from conman.domain.sealing import ANCHOR_FILE, AUDIT_REF, content_of
from conman.git.adapter import Commit, GitAdapter, Signature
from conman.services.audit_anchor import Anchor, anchors_down_from, newest
from conman.services.clock import now
from conman.services.sealing import SEALS
from conman.store.database import Database, Document

TAGS = "refs/tags/"
_PAGE = 500
_MOST_COMMITS = 100_000
_GATES = ("msuite_submit", "msuite_merge", "msuite_deploy", "revalidate_queued_changeset")


class NotProvable(Exception):
    """There is no proof of the release, or not yet; the text says why."""


async def prove(db: Database, git: GitAdapter, app: Document, tag: str) -> dict[str, Any]:
    """The proof of a published release. Raises `NotProvable`, `GitError`."""
    release = await db["releases"].find_one({"app_id": app["_id"], "owned.tag": tag})
    if release is None or release["owned"]["published_sha"] is None:
        raise NotProvable(f"the app has no published release {tag}")
    owned, repo = release["owned"], app["repo_path"]
    members = [Member.model_validate(one) for one in owned["members"]]
    deployments = await db["deployments"].find({"release_id": release["_id"]}, {"owned.state": 1}).sort("_id", 1).to_list()
    entities = [release["_id"], *(one.changeset_id for one in members), *(row["_id"] for row in deployments)]
    audit = await _audit(db, git, app, entities)
    events = [event["content"] for event in audit["events"]]
    published = [one for one in events if one["entity_id"] == release["_id"] and one["action"] == "published"]
    if not published:
        raise NotProvable(f"the publish of {tag} is not sealed and anchored yet: that takes a minute or two")
    tags = await git.list_refs(repo, TAGS + tag)
    names = ("base_sha", "candidate_sha", "published_sha", "supersedes", "reverts_release_id")
    return {
        "format": FORMAT,
        "version": VERSION,
        "made_at": now(),
        "made_by": f"conman {__version__}",
        "app": {"id": app["_id"], "name": app["name"]},
        "release": {
            "id": release["_id"],
            "app_id": app["_id"],
            "tag": tag,
            "state": owned["state"],
            **{name: owned[name] for name in names},
            "published_at": published[-1]["occurred_at"],
            "published_by": published[-1]["actor_user_id"],
            "tag_sha": tags.get(TAGS + tag),
        },
        "members": [await _member(db, git, repo, member, events) for member in members],
        "commits": await _line(git, repo, owned),
        "gates": await _gates(db, git, app, owned, members, entities),
        "deployments": [{"id": row["_id"], "state": row["owned"]["state"]} for row in deployments],
        "audit": audit,
    }


async def _member(db: Database, git: GitAdapter, repo: str, member: Member, events: list[Document]) -> dict[str, Any]:
    changeset = await db["changesets"].find_one({"_id": member.changeset_id}, {"owned.votes": 1, "owned.required_approvals": 1})
    owned: Document = {} if changeset is None else changeset["owned"]
    action = {"approve": "approved", "request_changes": "changes_requested", "reject": "rejected"}
    votes: list[Document] = []
    for vote in owned.get("votes", []):
        given = [
            event["occurred_at"]
            for event in events
            if (event["entity_id"], event["action"], event["actor_user_id"])
            == (member.changeset_id, action[vote["action"]], vote["reviewer_user_id"])
            and event["after"]["revision_number"] == vote["revision_number"]
        ]
        names = ("reviewer_user_id", "action", "revision_number", "void", "carried_to")
        votes.append({**{name: vote.get(name) for name in names}, "at": max(given, default=None)})
    names = ("changeset_id", "title", "author_user_id", "revision_number", "head_sha", "base_sha")
    shown = {name: getattr(member, name) for name in names}
    head = commit_text(await git.commit(repo, member.head_sha))
    return {**shown, "head_commit": head, "required_approvals": owned.get("required_approvals"), "votes": votes}


async def _line(git: GitAdapter, repo: str, owned: Document) -> list[Document]:
    """The commits from the published one down to the base, each by the first parent of the one before."""
    log = await git.log(repo, owned["published_sha"], exclude=owned["base_sha"], first_parent=True, limit=_MOST_COMMITS)
    return [{"sha": commit.sha, "parents": list(commit.parents), "raw": commit_text(commit)} for commit in log]


def commit_text(commit: Commit) -> str | None:
    """The text whose SHA-1 is a commit's id; None for a commit that has more than its metadata, such as a signature."""
    lines = [f"tree {commit.tree_id}", *(f"parent {parent}" for parent in commit.parents)]
    lines += [f"author {_stamp(commit.author)}", f"committer {_stamp(commit.committer)}"]
    text = "\n".join(lines) + "\n\n" + commit.message
    return text if git_id("commit", text.encode()) == commit.sha else None


def _stamp(who: Signature) -> str:
    return f"{who.name} <{who.email}> {int(who.when.timestamp())} {who.when.strftime('%z')[:5]}"


async def _gates(
    db: Database, git: GitAdapter, app: Document, owned: Document, members: list[Member], entities: list[str]
) -> list[Document]:
    """What the jobs say of the suites that ran for the release and its changesets, and on which tree."""
    commits = {one.changeset_id: one.head_sha for one in members}
    query = {"app_id": app["_id"], "entity_id": {"$in": entities}, "job_type": {"$in": list(_GATES)}}
    found: list[Document] = []
    trees: dict[str, str] = {}
    heads = {
        revision["job_id"]: revision["head_sha"]
        async for row in db["changesets"].find({"_id": {"$in": list(commits)}}, {"owned.revisions": 1})
        for revision in row["owned"]["revisions"]
    }
    gates: Document = app["settings"]["validation_gates"]
    async for job in db["jobs"].find(query).sort("_id", ASCENDING):
        commit: str | None
        if job["job_type"] == "msuite_submit":
            scope, commit = "submit", heads.get(job["_id"])
        elif job["job_type"] == "msuite_deploy":
            scope, commit = "deploy", owned["published_sha"]
        else:
            scope, commit = "release", owned["candidate_sha"] if job["job_type"] == "msuite_merge" else None
        if commit is not None and commit not in trees:
            trees[commit] = (await git.commit(app["repo_path"], commit)).tree_id
        found.append(
            {
                "job_id": job["_id"],
                **{name: job[name] for name in ("job_type", "entity_type", "entity_id", "state", "reason_code", "attempt")},
                "finished_at": job["finished_at"],
                "commit_sha": commit,
                "tree_id": trees.get(commit or ""),
                "command_now": gates.get(scope, {}).get("command"),
            }
        )
    return found


async def _audit(db: Database, git: GitAdapter, app: Document, entities: list[str]) -> dict[str, Any]:
    """The events of these entities that are sealed and anchored, with what links them to the anchor."""
    chain, repo = app["_id"], app["repo_path"]
    tip = await newest(git, repo)
    if tip is None:
        raise NotProvable(f"the audit is not anchored in {AUDIT_REF} yet: that takes a minute or two")
    found: dict[str, Document] = {}
    for begin in range(0, len(entities), _PAGE):
        async for event in db["audit"].find({"app_id": chain, "entity_id": {"$in": entities[begin : begin + _PAGE]}}):
            found[event["_id"]] = event
    places: dict[str, int] = {}
    ids = list(found)
    for begin in range(0, len(ids), _PAGE):
        async for seal in db[SEALS].find({"_id": {"$in": ids[begin : begin + _PAGE]}, "seq": {"$lte": tip.file.seq}}):
            places[seal["_id"]] = seal["seq"]
    if not places:
        raise NotProvable("no event of the release is sealed and anchored yet: that takes a minute or two")
    first = min(places.values())
    anchor = await _first_above(git, repo, tip, max(places.values()))
    query = {"chain": chain, "seq": {"$gte": first, "$lte": anchor.file.seq}}
    contents: list[str] = []
    previous_hash = ""
    # Of what lies in between only digests are kept: that may be years of a busy app.
    async for seal in db[SEALS].find(query, {"seq": 1, "content": 1, "previous_hash": 1}).sort([("seq", ASCENDING)]):
        if seal["seq"] != first + len(contents):
            break
        previous_hash = previous_hash or seal["previous_hash"]
        contents.append(seal["content"])
    if len(contents) != anchor.file.seq - first + 1:
        raise NotProvable("the chain of the audit has gaps: conman audit verify tells where")
    text = commit_text(await git.commit(repo, anchor.commit))
    file = await git.read_file(repo, anchor.commit, ANCHOR_FILE)
    if text is None or file is None:
        raise NotProvable(f"{anchor.commit} was not made by Conman: conman audit verify tells more")
    ordered = sorted(places, key=lambda one: places[one])
    return {
        "chain": chain,
        "first": first,
        "previous_hash": previous_hash,
        "contents": contents,
        "events": [{"seq": places[one], "content": content_of(found[one])} for one in ordered],
        "anchor": {"sha": anchor.commit, "commit": text, "file": file.data.decode()},
    }


async def _first_above(git: GitAdapter, repo: str, tip: Anchor, seq: int) -> Anchor:
    """The oldest anchor that reaches a place: the chain up to it is the shortest."""
    commit = tip.commit
    async for one, reached, _ in anchors_down_from(git, repo, tip.commit):
        if reached < seq:
            break
        commit = one
    if commit == tip.commit:
        return tip
    return await _anchor_at(git, repo, commit)


async def _anchor_at(git: GitAdapter, repo: str, commit: str) -> Anchor:
    found = await newest(git, repo, commit)
    if found is None:
        raise NotProvable(f"{AUDIT_REF} was moved meanwhile: try again")
    return found


def compare_with(path: Path, proof: dict[str, Any], found: Findings) -> None:
    """Hold a proof against a clone: the tag, and the commit that anchors the audit."""
    try:
        repository = pygit2.Repository(str(path))
    except pygit2.GitError as error:
        found.problems.append(f"{path} is no Git repository ({error}).")
        return
    release, anchor = proof["release"], proof["audit"]["anchor"]["sha"]
    tagged = _commit(repository, TAGS + release["tag"])
    if found.hold(tagged == release["published_sha"], f"{release['tag']} is {tagged or 'not there'} in {path}."):
        found.proved.append(f"{path} has the tag {release['tag']} at {tagged}.")
    tip = _commit(repository, AUDIT_REF)
    if tip is None:
        found.trusted.append(f"{path} has no {AUDIT_REF}: fetch it (git fetch origin {AUDIT_REF}:{AUDIT_REF}) to compare.")
        return
    there = tip == anchor or (anchor in repository and repository.descendant_of(tip, anchor))
    if found.hold(there, f"{AUDIT_REF} in {path} does not contain {anchor}."):
        found.proved.append(f"{AUDIT_REF} in {path} contains {anchor}.")
        found.trusted = [one for one in found.trusted if anchor not in one]


def _commit(repository: pygit2.Repository, ref: str) -> str | None:
    try:
        return str(repository.lookup_reference(ref).peel(pygit2.Commit).id)
    except (KeyError, pygit2.InvalidSpecError):
        return None

"""The proof of a release: one file, and what whoever has nothing else can check in it (docs/adr/0036-a-release-proves-itself.md).

What is recorded of the release is held against the audit's events, the events against the hash chain, the chain against the
commit that anchors it, and the published commit against the commits that were merged. All ids are computed anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from conman.domain.sealing import ANCHOR_FILE, AUDIT_REF, canonical, digest_of, link_hash, read_anchor

FORMAT: Final = "conman-release-proof"
VERSION: Final = 1


@dataclass(slots=True)
class Findings:
    """What the check came to: `problems` contradict the proof, `proved` holds by computing, `trusted` is only said."""

    problems: list[str] = field(default_factory=list[str])
    proved: list[str] = field(default_factory=list[str])
    trusted: list[str] = field(default_factory=list[str])

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts it."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"ok": self.ok, "problems": self.problems, "proved": self.proved, "trusted": self.trusted}

    def hold(self, truth: bool, problem: str) -> bool:
        """Note a problem unless it is true."""
        if not truth:
            self.problems.append(problem)
        return truth


def git_id(kind: str, data: bytes) -> str:
    """Git's id of an object of a kind (`commit`, `tree`, `blob`)."""
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def written(proof: Mapping[str, Any]) -> bytes:
    """The file of a proof: canonical JSON with the digest of all the rest in it."""
    rest = {name: value for name, value in proof.items() if name != "digest"}
    return canonical({**rest, "digest": hashlib.sha256(canonical(rest)).hexdigest()}) + b"\n"


def check(data: bytes) -> Findings:
    """Compute anew whatever a proof's file lets one compute."""
    found = Findings()
    try:
        _check_whole(json.loads(data), data, found)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        found.problems.append(f"The file has not the form of a proof ({type(error).__name__}: {error}).")
    return found


def _check_whole(proof: Mapping[str, Any], data: bytes, found: Findings) -> None:
    if not found.hold(proof["format"] == FORMAT, "This is no proof of a release."):
        return
    if not found.hold(proof["version"] == VERSION, "This proof has a form that this version of Conman does not know."):
        return
    if not found.hold(written(proof) == data, "The file was changed: its digest or its form is not that of what it holds."):
        return
    _check_chain(proof["audit"], found)
    _check_line(proof, found)
    _check_facts(proof, found)


def _check_chain(audit: Mapping[str, Any], found: Findings) -> None:
    """The events stand in the chain, and the chain leads to the hash in the anchor's commit."""
    chain, first, contents = audit["chain"], audit["first"], audit["contents"]
    for event in audit["events"]:
        place = event["seq"] - first
        if not found.hold(0 <= place < len(contents), f"Event {event['content']['id']} has no place in the chain that is shown."):
            continue
        same = digest_of(event["content"]) == contents[place]
        found.hold(same, f"Event {event['content']['id']} is not the one that was sealed at {event['seq']}.")
    last = audit["previous_hash"]
    for seq, content in enumerate(contents, first):
        last = link_hash(chain, seq, last, content)
    anchor = audit["anchor"]
    said = read_anchor(anchor["file"].encode())
    sealed_to = first + len(contents) - 1
    held = (said.chain, said.seq, said.hash) == (chain, sealed_to, last)
    found.hold(held, f"The chain up to {sealed_to} does not lead to the hash that its anchor holds.")
    blob = git_id("blob", anchor["file"].encode())
    tree = git_id("tree", f"100644 {ANCHOR_FILE}\0".encode() + bytes.fromhex(blob))
    raw = anchor["commit"].encode()
    found.hold(_headers(raw, "tree") == [tree], "The anchor's commit holds another file than the one that is shown.")
    found.hold(git_id("commit", raw) == anchor["sha"], "The anchor's commit has another id than the one that is said.")
    if found.ok:
        text = f"{len(audit['events'])} audit events are those that were sealed between {first} and {sealed_to}, if {AUDIT_REF}"
        found.proved.append(f"{text} of the repository contains the commit {anchor['sha']}.")
        found.trusted.append(f"That {AUDIT_REF} contains {anchor['sha']}: look in the repository, or give --repository.")


def _check_line(proof: Mapping[str, Any], found: Findings) -> None:
    """From the published commit each commit's first parent is the next, down to the base; the members are second parents."""
    release, members, commits = proof["release"], proof["members"], proof["commits"]
    expected = release["published_sha"]
    merged: list[str] = []
    whole = True
    for commit in commits:
        found.hold(commit["sha"] == expected, f"{commit['sha']} is not the commit that follows: {expected} is.")
        if commit["raw"] is None:
            whole = False
            found.trusted.append(f"The commit {commit['sha']}: it has headers (a signature, say) that Conman can't show.")
            parents = commit["parents"]
        else:
            raw = commit["raw"].encode()
            parents = _headers(raw, "parent")
            found.hold(git_id("commit", raw) == commit["sha"], f"The commit {commit['sha']} was changed: its id is another one.")
            found.hold(parents == commit["parents"], f"The commit {commit['sha']} has other parents than is said.")
        merged += parents[1:]
        expected = parents[0] if parents else None
    found.hold(expected == release["base_sha"], f"The commits lead to {expected}, and not to the base {release['base_sha']}.")
    if whole and found.ok:
        found.proved.append(f"{release['published_sha']} is made of {len(commits)} commits on top of {release['base_sha']}.")
    outside: list[str] = [one["changeset_id"] for one in members if one["head_sha"] not in merged]
    if outside:
        found.trusted.append(f"That the base contained already what these changesets bring: {', '.join(outside)}.")
    if whole and len(outside) < len(members) and found.ok:
        found.proved.append(f"It merges the heads of {len(members) - len(outside)} of its {len(members)} changesets.")


def _headers(raw: bytes, name: str) -> list[str]:
    lines = raw.partition(b"\n\n")[0].split(b"\n")
    return [line.partition(b" ")[2].decode() for line in lines if line.startswith(name.encode() + b" ")]


def _check_facts(proof: Mapping[str, Any], found: Findings) -> None:
    """What is recorded of the release and its changesets is what the audit's events say."""
    release, members = proof["release"], proof["members"]
    events = [event["content"] for event in proof["audit"]["events"]]
    found.hold(release["app_id"] == proof["audit"]["chain"], "The release is another app's than the audit.")
    published = _last(events, release["id"], "published")
    if found.hold(published is not None, "No event says that the release was published.") and published is not None:
        told = (published["after"]["tag"], published["git_sha"], published["occurred_at"], published["actor_user_id"])
        named = tuple(release[name] for name in ("tag", "published_sha", "published_at", "published_by"))
        found.hold(told == named, "The audit has another tag, commit, time or person for the publish than the proof says.")
        ordered = [one["changeset_id"] for one in members]
        found.hold(published["after"]["ordered_changeset_ids"] == ordered, "The audit names other changesets, or another order.")
    validated = _last(events, release["id"], "validated")
    if found.hold(validated is not None, "No event says that the release was validated.") and validated is not None:
        told = (validated["git_sha"], validated["after"]["base_sha"])
        found.hold(told == (release["candidate_sha"], release["base_sha"]), "The audit has another candidate or base.")
    for member in members:
        _check_member(member, events, found)
    _check_gates(proof, events, validated, found)
    found.hold(release["tag_sha"] == release["published_sha"], "The tag does not point at the published commit.")
    if found.ok:
        votes = sum(len(one["votes"]) for one in members)
        found.proved.append(f"Tag, commits, order, submitted heads and {votes} votes are those that the audit's events tell of.")
        found.trusted.append(
            "The names, titles and authors, how many approvals were required, which votes were void or carried, the release's"
            " other states, its deployments, and the commands that are configured now: no event is held against them."
        )
        found.trusted.append("That no other event speaks of the release: of those that are not shown there are digests only.")
        found.trusted.append("That whoever wrote the audit told the truth: a chain shows what was changed after it was sealed.")


def _check_member(member: Mapping[str, Any], events: Sequence[Mapping[str, Any]], found: Findings) -> None:
    changeset = member["changeset_id"]
    mine = [event for event in events if event["entity_type"] == "changeset" and event["entity_id"] == changeset]
    head = [event for event in mine if event["action"] in ("submitted", "resubmitted")]
    submitted = any(
        (event["after"]["revision_number"], event["after"]["head_sha"]) == (member["revision_number"], member["head_sha"])
        for event in head
    )
    found.hold(submitted, f"No event says that {changeset} was submitted as it was released.")
    names = {"approve": "approved", "request_changes": "changes_requested", "reject": "rejected"}
    for vote in member["votes"]:
        given = any(
            event["action"] == names[vote["action"]]
            and event["actor_user_id"] == vote["reviewer_user_id"]
            and (event["after"]["revision_number"], event["occurred_at"]) == (vote["revision_number"], vote["at"])
            for event in mine
        )
        found.hold(given, f"No event says that {vote['reviewer_user_id']} gave the vote on {changeset} that is shown.")


def _check_gates(
    proof: Mapping[str, Any], events: Sequence[Mapping[str, Any]], validated: Mapping[str, Any] | None, found: Findings
) -> None:
    """The audit names the gates without which nobody approves and no release is valid, and the commit that each judged.

    The commit's own text says which tree that is. Gates of events from before they named any are only said.
    """
    texts: dict[str, str | None] = {commit["sha"]: commit["raw"] for commit in proof["commits"]}
    texts |= {member["head_sha"]: member["head_commit"] for member in proof["members"]}
    named: dict[str, str] = {}
    if validated is not None:
        named |= dict.fromkeys(validated["after"].get("job_ids", ()), validated["git_sha"])
    for member in proof["members"]:
        for event in events:
            after = event["after"]
            mine = (event["entity_type"], event["entity_id"], event["action"]) == (
                "changeset",
                member["changeset_id"],
                "approved",
            )
            if mine and after["revision_number"] == member["revision_number"] and "gate_job_id" in after:
                named[after["gate_job_id"]] = after["head_sha"]
                same = after["head_sha"] == member["head_sha"]
                found.hold(same, f"{member['changeset_id']} was approved with another head than the one that was released.")
    shown = {gate["job_id"]: gate for gate in proof["gates"]}
    trees = 0
    for job_id, commit in named.items():
        gate = shown.get(job_id)
        if not found.hold(gate is not None, f"The audit names the gate {job_id}, which is not shown.") or gate is None:
            continue
        verdict = (gate["state"], gate["commit_sha"])
        found.hold(verdict == ("succeeded", commit), f"The audit says that the gate {job_id} has passed on {commit}.")
        text = texts.get(commit)
        if text is not None:
            raw = text.encode()
            found.hold(git_id("commit", raw) == commit, f"The commit {commit} was changed: its id is another one.")
            found.hold(_headers(raw, "tree") == [gate["tree_id"]], f"The gate {job_id} judged another tree than is said.")
            trees += 1
    if named and found.ok:
        found.proved.append(f"{len(named)} gates have passed as the audit's events tell, {trees} on the trees that are shown.")
    if others := len(shown.keys() - named.keys()):
        found.trusted.append(
            f"What is said of {others} other gates (retried, failed, revalidations, deployments): no event holds it."
        )
    if trees < len(named):
        found.trusted.append(f"The trees of {len(named) - trees} gates: the texts of their commits are not shown.")


def _last(events: Sequence[Mapping[str, Any]], entity_id: str, action: str) -> Mapping[str, Any] | None:
    found = [one for one in events if (one["entity_type"], one["entity_id"], one["action"]) == ("release", entity_id, action)]
    return max(found, key=lambda one: one["occurred_at"], default=None)

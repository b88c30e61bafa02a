"""Fault points: named places at which a process kills itself, for the tests of what survives a `kill -9`.

A test facility. It does nothing unless the process was started with `CONMAN_FAULT_POINTS="name:count"` (several separated by
commas): then the process sends itself SIGKILL the count-th time it passes that point. Unset, a point costs one comparison. A
name that is not listed here, or a bad count, stops the start: a test that arms nothing would prove nothing.

Never in `workflows/` or `domain/`: a workflow's code runs again with each replay.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping

VARIABLE = "CONMAN_FAULT_POINTS"

COLLECTIONS = ("changesets", "queues", "releases", "deployments")

POINTS: Mapping[str, str] = {
    **{f"persist.begun.{name}": f"a guarded write of {name} was asked for; nothing is written" for name in COLLECTIONS},
    **{f"persist.written.{name}": f"{name}: written, the outgoing entries are not delivered" for name in COLLECTIONS},
    **{f"persist.delivered.{name}": f"{name}: all is delivered, the workflow does not know" for name in COLLECTIONS},
    "audit.listed": "events wait for their seals and are not there yet",
    "deliver.audited": "audit events are there, jobs are not",
    "deliver.put": "audit events and jobs are there, the entries are still in `outgoing`",
    "feed.told": "an app's feed has the events, the entries that they tell of are still in `outgoing`",
    "jobs.created": "a workflow's own job is there, the workflow does not know",
    "jobs.ended": "a workflow's own job has ended, the workflow does not know",
    "gate.started": "the job says running, the suite has not started",
    "gate.logged": "the suite runs and has printed something",
    "gate.ended": "the suite has ended, nobody knows its verdict",
    "gate.kept": "the result of a suite is kept for others, its own job does not know it",
    "compose.merged": "one more merge commit of an assembly is made",
    "trial.merged": "one more trial merge of a revalidation is made",
    "tag.reserved": "a tag's number is taken, its release does not know",
    "tag.skipped": "a number whose tag exists is given up, the next one is not taken",
    "refs.begun": "the intent of a publish is recorded, no ref has moved",
    "refs.moved": "branch and tag have moved, the release's record does not say so",
    "queue.answered": "the queue has decided, who asked does not know",
    "tell.one": "one more changeset has taken its news",
    "lock.taken": "a deployment in line has its lock, its record does not say so",
    "begin.running": "lock and profile count a deployment as running, nobody has looked whether its profile has changed",
    "lock.running": "the lock says running, the deployment's record does not",
    "line.told": "the next in line is told that the lock is free, who told it does not know",
    "switch.exported": "the release's files are written beside the others, under a scratch name",
    "switch.sealed": "the deployment's folder is whole, `current` shows another",
    "switch.switched": "`current` shows the deployment, its record does not say so",
    "target.exported": "release and profile are written for a target's program, it has not started",
    "target.deployed": "a target's program has done its work, nobody knows",
    "migration.begun": "it is recorded that a migration starts, it has not",
    "migration.ran": "a migration has ended, its result is not recorded",
    "migration.recorded": "one more migration has its result, the next one has not begun",
    "verify.looked": "the environment was found right, nobody knows",
    "end.environment": "the environment shows the deployment, its record does not say so",
    "end.marked": "a release is marked bad for its environment, the deployment's record does not say so",
    "end.written": "the deployment's record says succeeded, its release's does not",
    "end.release": "the release's record is written, the lock is held",
    "end.unlocked": "the lock is free, the deployment's audit events and job are not delivered",
    "missing.started": "one missing workflow is started",
    "moved.told": "a queue knows that its integration branch was moved, validated releases do not",
    "missing.notice": "the missing workflow of one more notice is started",
    "notice.settled": "who is told of a notice is settled, its mails have no rows",
    "notice.expanded": "the mails of a notice have rows, which are not named in it",
    "notice.ended": "a notice is done, its workflow does not know",
    "mail.begun": "the row says that a mail is being sent, nothing has left",
    "mail.given": "a mail has left, its row does not say so",
    "webhook.begun": "a delivery says that it is being sent, nothing has left",
    "webhook.answered": "a receiver has answered, the delivery does not say so",
    "deploy.locked": "the API holds an environment's lock, there is no deployment yet",
    "deploy.inserted": "the deployment's record is there, its workflow is not",
    "rollback.locked": "a rollback holds its environment's lock, there is no deployment yet",
    "rollback.inserted": "the deployment of a rollback is there, its workflow is not",
    "rollback.release_inserted": "the release that undoes another has a record, nobody assembles it",
    "revert.overrides_kept": "what a release takes back of profiles is kept, its commit is not made",
    "revert.committed": "the commit that undoes a release is made, its assembly does not know",
    "revert.undone": "a release says that it was undone, the release that undid it does not know",
    "revert.stepped": "a release has taken a step of its rollback, the rollback does not know",
    "revert.told": "a deployment knows its release, or that there is none, the rollback does not know",
    "deploy.approved": "one deployment of a group has somebody's yes, the others do not",
    "deploy.canceled": "one deployment of a group is canceled, the others are not",
    "deploy.superseded": "a deployment knows that it is superseded, the record of the other does not say so",
    "temp_env.kept": "a ref keeps the commit of a temp env to be, there is no record of it",
    "temp_env.inserted": "the record of a temp env is there, its workflow is not",
    "hold.written": "the app is on hold, who asked for it does not know",
    "hold.lifted": "the app's hold is lifted, the deployments that wait for it do not know",
    "environment.cleared": "a release may be deployed again where it was marked bad, who asked does not know",
    "drift.inserted": "the job of a drift check is there, its process is not",
    "drift.begun": "the job of a drift check runs, nobody has looked",
    "drift.observed": "a target has said what it observes, nothing is compared",
    "drift.noted": "an environment's record shows what was seen, who asked does not know",
    "heal.locked": "a healing holds an environment's lock, there is no deployment yet",
    "heal.inserted": "a healing's record is there, its workflow is not",
    "takeover.workspace": "there is a workspace to take a drift over, no changeset on it",
    "takeover.changeset": "there is a changeset to take a drift over, its overrides are not set",
    "workspace.inserted": "a workspace's record is there, its refs are not",
    "workspace.branched": "a workspace's refs are there, its record does not say that it is ready",
    "workspace.moved": "a workspace's refs have moved, the audit does not know",
    "workspace.closed": "no changeset can be opened on a workspace any more, it is not deleted yet",
    "workspace.deleting": "a workspace is gone for everybody, its refs are not",
    "save.committed": "a save is in Git, the audit does not know",
    "secrets.sealed": "an encrypted value is kept, nobody has confirmed that its key stays",
    "profile.kept": "a profile's new revision is kept, the profile does not name it",
    "overrides.kept": "what overrides change is kept, the changeset does not have them",
    "arrival.kept": "the revision that a deployment would bring to a profile is kept, its gate has not begun",
    "end.profile": "the profile has the overrides that a deployment brought, its environment does not show it",
    "rotation.recorded": "a rotation is in the profile's record and its audit, there is no new data key",
    "rotation.added": "the new data key is there, the old one is not retired",
    "rotation.retired": "new values take the new key, all others are under the old one",
    "rotation.value": "one more value is under the new key",
    "rotation.emptied": "no value is under the old key any more, it is still there",
    "rotation.dropped": "the old key is gone, the profile's record says that the rotation goes on",
    "members.recorded": "an app's record names a change of members, no membership shows it",
    "members.shown": "the membership shows a change, the app's record still names it",
    "votes.told": "one more changeset counts the votes of somebody no more who may not review now",
    "disabling.suspended": "one more app counts somebody as an app_admin no more, the account is not disabled yet",
    "invite.accepted": "an invite is used, who used it is no member yet",
    "reset.recorded": "a token is an account's, nobody was told of it",
    "reset.issued": "the mail with a token is on its way, the request is still recorded",
    "reset.done": "a password is set by a token, other tokens of the account still look good",
    "admins.recorded": "the record of platform admins names a change, the account does not show it",
    "admins.shown": "the account shows a change of its flags, the record still names it",
    "master.recorded": "a change of the master key is recorded, no data key is wrapped anew",
    "master.rewrapped": "one more data key is wrapped anew, or was by somebody else",
    "master.ending": "every data key is wrapped anew, the record and the audit do not say so",
    "standstill.begun": "no release may begin to assemble or publish; the change for which that is has not come",
    "standstill.ended": "releases may go on, deployments are still shut out",
    "environments.closed": "no deployment may begin in environments that are left out, the list still has them",
    "environments.listed": "the list of environments is another one, nothing that it calls for is done",
    "environments.profiles": "the profiles of new environments are there, the environments are not",
    "environments.relinked": "other profiles are known as emergency edits, the environments' records show the old ones",
    "environments.copied": "the environments' records say what the list says, the app's still says that they do not",
    "settings.branch": "an app is on another integration branch, its queue does not know",
    "settings.told": "the queue knows the other branch, releases still may not begin",
    "archive.closed": "no deployment may begin in an app, it is not archived yet",
    "archive.written": "an app is archived, all that runs for it goes on",
    "archive.revoked": "the invites of an archived app are revoked, its gates still run",
    "archive.canceled": "what runs for an archived app was told to end, its record says that more may come",
    "seal.intended": "it is recorded which events are sealed next, none has its seal",
    "seal.kept": "events have their seals, the head of their chain does not say so",
    "seal.advanced": "the head of a chain has moved, its events still wait",
    "anchor.committed": "the head of a chain is in the repository, the database does not know",
    "clone.collection": "one more collection of a clone is whole and in its place, others are not",
    "clone.batch": "some documents of a collection have come to a clone, others have not",
    "clone.filled": "a database is cloned, its mark does not say that it is whole",
    "clone.dropped": "a clone is dropped, the branch and the profile of its temp env are there",
    "dump.batch": "some documents of a collection are in its file",
    "dump.collection": "one more collection of a database is dumped",
    "restore.batch": "some documents of a file are restored, the clone does not say so",
    "temp_env.branched": "the refs of a temp env are there, its workflow does not know",
    "temp_env.sealed": "the secrets of a derived profile are kept, the profile is not",
    "temp_env.profiled": "a derived profile's revision is kept, the profile is not there",
    "temp_env.unprofiled": "all that a temp env had is gone, its workflow does not know",
    "submit.committed": "the API has committed what was pending, nothing is frozen",
    "submit.frozen": "the revision's ref is there, the workflow was not asked",
}
"""Every point with what is true when the process dies there."""


class FaultPointError(Exception):
    """`CONMAN_FAULT_POINTS` names no point, or no count."""


def parse(text: str) -> dict[str, int]:
    """Point → at which pass the process dies. Raises `FaultPointError`."""
    armed: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, count = part.partition(":")
        if name not in POINTS:
            raise FaultPointError(f"{VARIABLE}: there is no fault point {name!r}")
        if not count.isdecimal() or int(count) < 1:
            raise FaultPointError(f"{VARIABLE}: {part!r} needs a count from 1 on, as in {name}:1")
        armed[name] = int(count)
    return armed


def _kill_self(_name: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Armed:
    """The points at which this process dies."""

    def __init__(self, points: Mapping[str, int], act: Callable[[str], None]) -> None:
        self.points = points
        self.act = act
        self.passed: Counter[str] = Counter()

    def passing(self, name: str) -> None:
        if name not in POINTS:
            raise FaultPointError(f"there is no fault point {name!r}")
        self.passed[name] += 1
        if self.points.get(name) == self.passed[name]:
            self.act(name)


_armed: _Armed | None = None


def arm(points: Mapping[str, int], act: Callable[[str], None] = _kill_self) -> None:
    """Have this process act (die, unless a test gives another act) at these points; an empty mapping disarms."""
    global _armed
    _armed = _Armed(points, act) if points else None


def fault_point(name: str) -> None:
    """Die here if the environment says so (see the module's docstring)."""
    if _armed is not None:
        _armed.passing(name)


if os.environ.get(VARIABLE):
    arm(parse(os.environ[VARIABLE]))
    print(f"{VARIABLE} is set: this process will kill itself; never set it outside tests", file=sys.stderr, flush=True)

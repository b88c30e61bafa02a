"""The environments' locks, fences and lines, and the app's hold: one document per app, one guarded write (`durability.md` 15).

    locks {_id: app, revision, hold?, closed?, undecided?, environments: {environment: {
        fence, holder: {deployment_id, state, since, over?, kept_by?} | None, waiting?: [{deployment_id, since}], closed?}}}

`waiting` is who gets the lock next, first come first served. `over` is the deployment from which a holder took the lock. A holder
that came with others in one request is `kept_by` the first of them: whose record brings its record.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from pymongo.errors import DuplicateKeyError

from conman.domain.hold import Hold
from conman.domain.times import later
from conman.store.database import Database, Document

ORPHAN_AFTER = timedelta(minutes=1)
"""A holder, or one in line, without a record counts as gone after this long."""

_FREE: Document = {"fence": 0, "holder": None}
"""The entry of an environment that was never deployed to."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds an environment, or is first in its line: a deployment, `pending` or `running`, since when."""

    environment_id: str
    deployment_id: str
    state: str
    since: str


@dataclass(frozen=True, slots=True)
class Taken:
    """The outcome of a try: the raised fences by environment, or what stood in the way.

    `waits`: it has its place in the line behind `holder`. `superseded`: environment → the deployment from which it was taken.
    """

    fences: dict[str, int]
    holder: Holder | None = None
    concurrent: bool = False
    closed: str | None = None
    """The environment in `wanted` that is archived, or the app's id when the app is."""
    hold: Hold | None = None
    waits: bool = False
    superseded: dict[str, str] = field(default_factory=dict[str, str])


async def is_free(db: Database, holder: Document, at: str) -> bool:
    """Whether a holder, or one in line, counts as gone: its deployment has ended, or never came to be."""
    deployment = await db["deployments"].find_one({"_id": holder["deployment_id"]}, {"owned.state": 1})
    if deployment is None:
        keeper = holder.get("kept_by")
        if keeper is not None and await db["deployments"].find_one({"_id": keeper}, {"_id": 1}) is not None:
            return False  # its record is on its way
        return later(holder["since"], ORPHAN_AFTER) < at
    return deployment["owned"]["state"] in ("succeeded", "failed", "canceled")


async def line(db: Database, entry: Document, at: str) -> list[Document]:
    """Those who still wait, in their order."""
    return [one for one in entry.get("waiting", []) if not await is_free(db, one, at)]


async def _holding(db: Database, entry: Document, at: str) -> Document | None:
    holder: Document | None = entry["holder"]
    return holder if holder is not None and not await is_free(db, holder, at) else None


async def _others_run(db: Database, entries: dict[str, Document], wanted: Collection[str], at: str) -> bool:
    """Whether a deployment is at work in another environment; one that has ended counts as gone, whoever has yet to free it."""
    for environment_id, entry in entries.items():
        holder = await _holding(db, entry, at) if environment_id not in wanted else None
        if holder is not None and holder["state"] == "running":
            return True
    return False


async def active_in(db: Database, entries: dict[str, Document], at: str) -> dict[str, Holder]:
    """Environment id → who holds it, or is the next to; of the entries of one document."""
    found = {environment_id: await _active(db, environment_id, entry, at) for environment_id, entry in entries.items()}
    return {environment_id: holder for environment_id, holder in found.items() if holder is not None}


async def _active(db: Database, environment_id: str, entry: Document, at: str) -> Holder | None:
    one = await _holding(db, entry, at)
    if one is None:
        one = next(iter(await line(db, entry, at)), None)
    if one is None:
        return None
    return Holder(environment_id, one["deployment_id"], one.get("state", "pending"), one["since"])


async def take(
    db: Database,
    app_id: str,
    wanted: dict[str, str],
    at: str,
    *,
    wait: bool = False,
    over: Collection[str] = (),
    start_at: str | None = None,
    kept_by: str | None = None,
    over_pending: bool = False,
) -> Taken:
    """Take the locks of all environments in `wanted` (environment id → deployment id), or none.

    A repeat by the same deployments finds its own locks and fences. `concurrent` says whether another deployment of the app
    is `running`. Nothing is taken in an app or environment that is closed, nor where others wait in line.

    `wait`: one that wants a single environment joins its line instead. `over`: holders from which the lock is taken unless they
    run; `over_pending`: from any that does not run, and ahead of the line, which waits on. `start_at`: a hold that stands at that
    time refuses it; None for what needs only the lock. `kept_by`: the first of a group, whose record brings those of the others.
    """
    while True:
        document = await document_of(db, app_id)
        if document.get("closed"):
            return Taken({}, closed=app_id)
        hold = _hold(document)
        if hold is not None and start_at is not None and hold.stands(start_at):
            return Taken({}, hold=hold)
        entries: dict[str, Document] = document["environments"]
        running = await _others_run(db, entries, wanted, at)
        taken = Taken({}, concurrent=running)
        changes: Document = {}
        for environment_id, deployment_id in wanted.items():
            entry = entries.get(environment_id, _FREE)
            if entry.get("closed"):
                return Taken({}, closed=environment_id)
            if entry["holder"] is not None and entry["holder"]["deployment_id"] == deployment_id:
                taken.fences[environment_id] = entry["fence"]
                if entry["holder"].get("over") is not None:
                    taken.superseded[environment_id] = entry["holder"]["over"]
                continue
            ahead = await line(db, entry, at)
            holder = await _holding(db, entry, at)
            replaced = None
            may_replace = over_pending or (holder is not None and holder["deployment_id"] in over and not ahead)
            if holder is not None and holder["state"] == "pending" and may_replace:
                replaced, holder = holder["deployment_id"], None
            in_the_way = holder if holder is not None or over_pending else next(iter(ahead), None)
            if in_the_way is not None and in_the_way["deployment_id"] != deployment_id:
                found = Holder(
                    environment_id, in_the_way["deployment_id"], in_the_way.get("state", "pending"), in_the_way["since"]
                )
                if not wait or len(wanted) > 1:
                    return Taken({}, found)
                taken = Taken({}, found, concurrent=running, waits=True)
                if all(one["deployment_id"] != deployment_id for one in ahead):
                    waiting = [*ahead, {"deployment_id": deployment_id, "since": at}]
                    changes[f"environments.{environment_id}"] = {**entry, "waiting": waiting}
                continue
            others = [one for one in ahead if one["deployment_id"] != deployment_id]
            given = _given(entry, deployment_id, at, others, over=replaced, kept_by=kept_by)
            changes[f"environments.{environment_id}"] = given
            taken.fences[environment_id] = given["fence"]
            if replaced is not None:
                taken.superseded[environment_id] = replaced
        if not changes or await _won(db, document, {"$set": changes}):
            return taken


def _given(entry: Document, deployment_id: str, at: str, waiting: list[Document], **more: str | None) -> Document:
    """The entry once a deployment has been given the lock."""
    holder = {"deployment_id": deployment_id, "state": "pending", "since": at}
    holder |= {name: value for name, value in more.items() if value is not None}
    return {**entry, "fence": entry["fence"] + 1, "holder": holder, "waiting": waiting}


async def document_of(db: Database, app_id: str) -> Document:
    """An app's whole document; it is made when there is none yet."""
    while True:
        document = await db["locks"].find_one({"_id": app_id})
        if document is not None:
            return document
        with suppress(DuplicateKeyError):  # another request made it first, and the loop reads that one
            await db["locks"].insert_one(_new(app_id))


async def release(db: Database, app_id: str, environment_id: str, deployment_id: str, at: str) -> str | None:
    """Give up the lock, or the place in its line, that a deployment has; the fence stays.

    The lock goes to the first in line in the same write. Returns that deployment, which is to be told; upkeep tells one whose
    news was lost.
    """
    return await _hand_over(db, app_id, environment_id, at, leaving=deployment_id)


async def advance(db: Database, app_id: str, environment_id: str, at: str) -> str | None:
    """Give the lock to the first in line if its holder is gone; returns that deployment."""
    return await _hand_over(db, app_id, environment_id, at, leaving=None)


async def _hand_over(db: Database, app_id: str, environment_id: str, at: str, *, leaving: str | None) -> str | None:
    while True:
        document = await db["locks"].find_one({"_id": app_id})
        entry: Document | None = document["environments"].get(environment_id) if document is not None else None
        if document is None or entry is None:
            return None
        holder = entry["holder"]
        waited = any(one["deployment_id"] == leaving for one in entry.get("waiting", []))
        if leaving is None:
            freed = await _holding(db, entry, at) is None
        else:
            freed = holder is not None and holder["deployment_id"] == leaving
        if not freed and not waited:
            return None
        waiting = [one for one in await line(db, entry, at) if one["deployment_id"] != leaving]
        following = waiting[0]["deployment_id"] if freed and waiting else None
        if following is not None:
            after = _given(entry, following, at, waiting[1:])
        elif freed:
            after = {**entry, "holder": None, "waiting": waiting}
        else:
            after = {**entry, "waiting": waiting}
        if after == entry or await _won(db, document, {"$set": {f"environments.{environment_id}": after}}):
            return following


async def close(db: Database, app_id: str, environment_ids: Sequence[str] | None, *, by: str, at: str) -> Holder | None:
    """Let no deployment begin in these environments any more (None: in the whole app), unless one is active there.

    One guarded write decides between this and `take`. Returns the holder that stands in the way; then nothing is closed. What
    several calls have closed stays so until each has reopened it; a repeat by the same call changes nothing. The call's id is
    kept as `undecided` until `settle` or `reopen`, so that upkeep finds what a crash left between this and the app's record.
    """
    while True:
        document = await document_of(db, app_id)
        entries: dict[str, Document] = document["environments"]
        for environment_id in entries if environment_ids is None else environment_ids:
            holder = await _active(db, environment_id, entries.get(environment_id, _FREE), at)
            if holder is not None:
                return holder
        changes: Document = {}
        if environment_ids is None:
            changes["closed"] = _marked(document, by, at)
        for environment_id in environment_ids or ():
            entry = entries.get(environment_id, _FREE)
            changes[f"environments.{environment_id}"] = {**entry, "closed": _marked(entry, by, at)}
        changes["undecided"] = _marked(document, by, at, field="undecided")
        if await _won(db, document, {"$set": changes}):
            return None


def _marked(entry: Document, by: str, at: str, field: str = "closed") -> list[Document]:
    return [*(mark for mark in entry.get(field, []) if mark["by"] != by), {"by": by, "at": at}]


async def settle(db: Database, app_id: str, *, by: str) -> None:
    """What the call `by` has closed stays closed: the app's record says so too."""
    await db["locks"].update_one({"_id": app_id}, {"$pull": {"undecided": {"by": by}}, "$inc": {"revision": 1}})


async def reopen(db: Database, app_id: str, *, by: str) -> None:
    """Undo what the call `by` has closed."""
    while True:
        document = await document_of(db, app_id)
        places = {f"environments.{key}.closed": entry.get("closed", []) for key, entry in document["environments"].items()}
        places |= {place: document.get(place, []) for place in ("closed", "undecided")}
        left = {
            place: [mark for mark in marks if mark["by"] != by]
            for place, marks in places.items()
            if any(mark["by"] == by for mark in marks)
        }
        if not left or await _won(db, document, {"$set": left}):
            return


async def _won(db: Database, document: Document, change: Document) -> bool:
    """Whether the write came before any other one since the document was read."""
    guard = {"_id": document["_id"], "revision": document["revision"]}
    return await db["locks"].find_one_and_update(guard, {**change, "$inc": {"revision": 1}}) is not None


async def mark_running(
    db: Database, app_id: str, environment_id: str, deployment_id: str, *, at: str | None = None, attempt: int = 1
) -> bool:
    """The holder starts; False when it no longer holds the lock. `at` and `attempt` tell this start from its others."""
    field = f"environments.{environment_id}.holder"
    started = {f"{field}.state": "running", f"{field}.begun": {"at": at, "attempt": attempt}}
    document = await db["locks"].find_one_and_update(
        {"_id": app_id, f"{field}.deployment_id": deployment_id}, {"$set": started, "$inc": {"revision": 1}}
    )
    return document is not None


async def mark_pending(db: Database, app_id: str, environment_id: str, deployment_id: str, *, at: str, attempt: int) -> None:
    """The holder goes back to its checks before anything of it shows; a later start, or attempt at it, stays as it is."""
    begun = {"at": at, "attempt": attempt}
    await _back_to_pending(db, app_id, environment_id, deployment_id, {"begun": begun})


async def mark_waiting(db: Database, app_id: str, environment_id: str, deployment_id: str, *, at: str) -> None:
    """The holder is pending at this time: a start before it was cut short, and its process has been lost since."""
    await _back_to_pending(db, app_id, environment_id, deployment_id, {"begun.at": {"$lt": at}})


async def _back_to_pending(db: Database, app_id: str, environment_id: str, deployment_id: str, begun: Document) -> None:
    field = f"environments.{environment_id}.holder"
    guard = {"deployment_id": deployment_id, "state": "running", **begun}
    await db["locks"].find_one_and_update(
        {"_id": app_id, **{f"{field}.{name}": value for name, value in guard.items()}},
        {"$set": {f"{field}.state": "pending"}, "$inc": {"revision": 1}},
    )


async def raise_fence(db: Database, app_id: str, environment_id: str, deployment_id: str, *, fence: int) -> int | None:
    """Raise the fence of the holder by one, from `fence`; a repeat finds it raised. None when it holds the lock no longer."""
    entry = f"environments.{environment_id}"
    holds = {"_id": app_id, f"{entry}.holder.deployment_id": deployment_id}
    await db["locks"].find_one_and_update(
        {**holds, f"{entry}.fence": fence}, {"$set": {f"{entry}.fence": fence + 1}, "$inc": {"revision": 1}}
    )
    raised = await db["locks"].find_one({**holds, f"{entry}.fence": fence + 1}, {"_id": 1})
    return fence + 1 if raised is not None else None


async def read(db: Database, app_id: str) -> dict[str, Document]:
    """Environment id → `{fence, holder, waiting?}` of an app."""
    document = await db["locks"].find_one({"_id": app_id})
    return document["environments"] if document is not None else {}


async def peek(db: Database, app_id: str) -> Document:
    """An app's whole document, as it would be made where there is none yet."""
    return await db["locks"].find_one({"_id": app_id}) or _new(app_id)


def _new(app_id: str) -> Document:
    return {"_id": app_id, "revision": 0, "environments": {}}


async def hold_of(db: Database, app_id: str) -> Hold | None:
    """The hold that somebody has set, also one whose time is over and that nobody has taken off yet."""
    document = await db["locks"].find_one({"_id": app_id}, {"hold": 1})
    return _hold(document) if document is not None else None


def _hold(document: Document) -> Hold | None:
    kept = document.get("hold")
    return Hold.model_validate(kept) if kept is not None else None


async def current_fence(db: Database, app_id: str, environment_id: str) -> int:
    """The environment's fence: a target refuses a deployment with a lower one."""
    return (await read(db, app_id)).get(environment_id, {"fence": 0})["fence"]

"""All data keys under the primary master key, so that older ones may leave the keyring (`spec.md` 6).

Each data key is wrapped anew by compare-and-swap, so that edits and rotations go on meanwhile, and a run that was cut short is
taken up by the next. `master_rotations` {_id = the primary key's id, run, running, started_at, master_key_ids} holds the intent;
the audit event is written with the run's end, by whichever process gets there first.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pymongo.errors import DuplicateKeyError

from conman.domain.decision import Event
from conman.domain.ids import derived_uuid7
from conman.domain.times import milliseconds
from conman.faults import fault_point
from conman.services.call import Call
from conman.services.master_keys import Progress, Undecryptable
from conman.services.secrets import DATA_KEYS, SecretStore, wrapped_key
from conman.services.vault import VaultError
from conman.store import records
from conman.store.database import Document

MASTER_ROTATIONS = "master_rotations"


@dataclass(frozen=True, slots=True)
class MasterRotation:
    """How it ended. `may_leave`: ids of the keyring under which nothing is kept any more. With `problems` it is not done."""

    master_key_id: str
    rewrapped: int
    may_leave: list[str]
    problems: list[Undecryptable]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"ok": not self.problems, **asdict(self)}


async def rotate_master(store: SecretStore, call: Call, progress: Progress) -> MasterRotation:
    """Wrap every data key under the primary master key; repeatable at any time, nothing is done where nothing is to do."""
    primary = store.vault.primary
    others: Document = {"master_key_id": {"$ne": primary}}
    before = sorted(await store.db[DATA_KEYS].distinct("master_key_id", others))
    intent = await _begin(store, call, primary, before)
    rewrapped = 0
    failed: dict[str, Undecryptable] = {}
    while intent is not None:
        # Again and again: a process that still has the old keyring may make data keys under its own primary key meanwhile.
        rows = await store.db[DATA_KEYS].find({**others, "_id": {"$nin": list(failed)}}).to_list()
        if not rows:
            break
        total = rewrapped + len(rows)
        for row in rows:
            try:
                rewrapped += await _rewrap(store, row, f"{primary}:{intent['run']}")
            except VaultError:
                failed[row["_id"]] = Undecryptable("data_key", row["_id"], row["profile_id"])
            fault_point("master.rewrapped")
            progress(rewrapped, total)
    if intent is not None and not failed:
        await _end(store, call, intent)
    used = await store.db[DATA_KEYS].distinct("master_key_id")
    may_leave = [key_id for key_id in store.vault.master_key_ids if key_id != primary and key_id not in used]
    return MasterRotation(primary, rewrapped, may_leave, list(failed.values()))


async def _begin(store: SecretStore, call: Call, primary: str, before: list[str]) -> Document | None:
    """The recorded intent: that of a run which was cut short, else a new one; None when there is nothing to do."""
    collection = store.db[MASTER_ROTATIONS]
    there = await collection.find_one({"_id": primary})
    if there is not None and there["running"]:
        return there
    if not before:
        return None
    fresh: Document = {"running": True, "started_at": call.at, "master_key_ids": before}
    try:
        if there is None:
            await collection.insert_one({"_id": primary, "run": 1, **fresh})
        else:
            await collection.update_one({"_id": primary, "run": there["run"]}, {"$set": {**fresh, "run": there["run"] + 1}})
    except DuplicateKeyError:
        pass  # Another process began just now, and both do the same work.
    fault_point("master.recorded")
    return await records.get(store.db, MASTER_ROTATIONS, primary, what="rotation")


async def _rewrap(store: SecretStore, row: Document, mark: str) -> int:
    """Wrap one data key anew; 1, or 0 when somebody else did or it was dropped. `mark` counts the profiles of a run."""
    kept = wrapped_key(row)
    made = store.vault.rewrap(row["profile_id"], row["_id"], kept)
    change = {"master_key_id": made.master_key_id, "wrapped": made.wrapped, "rewrapped_by": mark}
    done = await store.db[DATA_KEYS].update_one({"_id": row["_id"], "wrapped": kept.wrapped}, {"$set": change})
    return done.modified_count


async def _end(store: SecretStore, call: Call, intent: Document) -> None:
    """Say that the run is done, with its audit event: once, whoever comes first."""
    primary, run, started_at = intent["_id"], intent["run"], intent["started_at"]
    profiles = await store.db[DATA_KEYS].distinct("profile_id", {"rewrapped_by": f"{primary}:{run}"})
    rotation_id = derived_uuid7(milliseconds(started_at), "master rotation", primary, str(run))
    event = Event(
        "secrets",
        rotation_id,
        "master_rotated",
        before={"master_key_ids": intent["master_key_ids"]},
        after={"master_key_id": primary, "profiles_rewrapped": len(profiles)},
    )
    fault_point("master.ending")
    await records.write_where(
        store.db,
        MASTER_ROTATIONS,
        {"_id": primary, "run": run, "running": True},
        {"$set": {"running": False}},
        outgoing=call.audit(event, app_id=None),
    )

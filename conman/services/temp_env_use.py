"""The use of temp envs (`spec.md` 13): one small write for each, at most ten a second, and nothing in any history.

Whoever serves a use writes `last_activity_at` at the record's top level; the process of the temp env reads it when it wakes
(docs/adr/0031-temp-envs-by-host.md).
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import timedelta

from conman.domain.temp_env import SERVED, TempEnv, TempEnvKind, TempEnvState
from conman.domain.times import later
from conman.store import records
from conman.store.database import Database

COLLECTION = "temp_envs"
APART = timedelta(milliseconds=100)
"""Uses of one temp env that come closer together than this, in one process, are one."""
MOST_NOTED = 10_000
"""Of so many temp envs a process remembers when it wrote last; of others a write may come early."""

_written: OrderedDict[str, str] = OrderedDict()


async def touch(db: Database, temp_env_id: str, at: str) -> None:
    """Note a use at `at`. One that is not active is not revived by it, and shows the deadline that it has missed as it was."""
    last = _written.get(temp_env_id)
    if last is not None and at < later(last, APART):
        return
    query = {"_id": temp_env_id, "owned.state": TempEnvState.ACTIVE.value}
    await db[COLLECTION].update_one(query, {"$max": {"last_activity_at": at}})
    _written[temp_env_id] = at
    _written.move_to_end(temp_env_id)
    if len(_written) > MOST_NOTED:
        _written.popitem(last=False)


async def profile_to_test_with(db: Database, changeset_id: str) -> tuple[str, str] | None:
    """The usable temp env of a changeset, else that of its workspace, and its derived profile; None: there is neither.

    A submit's suite runs with that profile in place of the base profile (`spec.md` 9).
    """
    changeset = await records.find(db, "changesets", changeset_id)
    if changeset is None:
        return None
    for kind, source_id in ((TempEnvKind.CHANGESET, changeset_id), (TempEnvKind.WORKSPACE, changeset["owned"]["workspace_id"])):
        found = await db[COLLECTION].find_one({"live_slot": f"{kind.value}:{source_id}"})
        temp_env = TempEnv.model_validate(found["owned"]) if found is not None and "owned" in found else None
        if found is not None and temp_env is not None and temp_env.state in SERVED and temp_env.runtime_profile_id is not None:
            return found["_id"], temp_env.runtime_profile_id
    return None

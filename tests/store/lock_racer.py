"""One of several processes that race for the same locks; run as a program by `test_lock_races.py`.

Its arguments are the URI and the name of a database. Standard input has a round per line, `{"at", "tries": [{environment:
deployment}]}`; standard output says what came of its tries, which run at once: `[{"fences", "holder"}]`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from conman.store import locks
from conman.store.database import Database, connect


async def main(uri: str, name: str) -> None:
    client = connect(uri)
    db = client[name]
    await db.command("ping")
    _say("ready")
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        _say(await asyncio.gather(*(_try(db, wanted, order["at"]) for wanted in order["tries"])))
    await client.close()


async def _try(db: Database, wanted: dict[str, str], at: str) -> dict[str, Any]:
    taken = await locks.take(db, "app", wanted, at)
    return {"fences": taken.fences, "holder": taken.holder.deployment_id if taken.holder is not None else None}


def _say(message: Any) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

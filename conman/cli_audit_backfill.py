"""`conman audit backfill`: events for records that have none (`spec.md` 14 and 15)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from conman.cli_audit import AppOption, DataOption, JsonOption, find_apps, with_stores

if TYPE_CHECKING:  # Every `conman` imports this module: what its commands need comes with them.
    from conman.git.adapter import GitAdapter
    from conman.services.audit_verify import Progress
    from conman.store.database import Database


def backfill(
    app: AppOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what is missing, and write nothing.")] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the event of its beginning for each record that has no event at all.

    Such records come from versions that wrote no audit, or their events were
    lost. The event says in backfilled_at when it was written. It may be stopped
    and run again at any time, while people work.
    """
    from conman.cli import out

    async def work(db: Database, _git: GitAdapter, progress: Progress) -> dict[str, int]:
        from conman.services.audit_backfill import backfill as write_missing
        from conman.services.clock import now

        app_id = (await find_apps(db, app))[0]["_id"] if app is not None else None
        return await write_missing(db, now(), app_id=app_id, dry_run=dry_run, progress=progress)

    found = with_stores(data, "looking at records", work)
    if as_json:
        out.print_json(json.dumps({"dry_run": dry_run, "missing": found}))
        return
    for entity_type, number in found.items():
        out.print(f"{entity_type}: {number}", highlight=False)
    done = "would be written" if dry_run else "were written"
    out.print(f"{sum(found.values())} events {done}", highlight=False)

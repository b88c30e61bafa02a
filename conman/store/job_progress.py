"""How far a job has come, as its record shows it (`api.md` 4)."""

from __future__ import annotations

from conman.domain.messages import JobProgress
from conman.store.database import Database
from conman.store.feed import tell_jobs


async def show_progress(db: Database, progress: JobProgress, at: str) -> None:
    """Show it while the job runs; what is shown already changes nothing."""
    shown = {"done": progress.done, "total": progress.total, "message": progress.message}
    written = await db["jobs"].update_one(
        {"_id": progress.job_id, "state": "running", "progress": {"$ne": shown}},
        {"$set": {"progress": shown, "updated_at": at}, "$inc": {"version": 1}},
    )
    if written.modified_count:
        await tell_jobs(db, [progress.job_id])

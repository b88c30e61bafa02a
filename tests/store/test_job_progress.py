"""The progress of a job as its record shows it (`api.md` 4)."""

from __future__ import annotations

import pytest

from conman.domain.messages import JobProgress
from conman.store.database import Database
from conman.store.job_progress import show_progress

HALF = JobProgress(job_id="j", done=5, total=10, message="5 of 10 merges")


async def test_a_running_job_shows_how_far_it_has_come_and_the_same_again_changes_nothing(db: Database) -> None:
    await db["jobs"].insert_one({"_id": "j", "state": "running", "version": 3, "progress": None})
    await show_progress(db, HALF, "t1")
    await show_progress(db, HALF, "t2")
    job = await db["jobs"].find_one({"_id": "j"})
    shown = {"done": 5, "total": 10, "message": "5 of 10 merges"}
    assert job == {"_id": "j", "state": "running", "version": 4, "progress": shown, "updated_at": "t1"}


@pytest.mark.parametrize("state", ["queued", "succeeded", "failed", "canceled"])
async def test_a_job_that_does_not_run_shows_no_progress(db: Database, state: str) -> None:
    kept = {"_id": "j", "state": state, "version": 3, "progress": None}
    await db["jobs"].insert_one(dict(kept))
    await show_progress(db, HALF, "t1")
    assert await db["jobs"].find_one({"_id": "j"}) == kept

"""Trial merges that conflict in more paths than travel at once (`spec.md` 10): every entry is judged all the same."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from conman.activities import git, merging
from conman.domain.messages import SweepStart, TrialReply, TrialRequest
from conman.domain.queue_records import Entry
from conman.git.adapter import Conflict, ConflictKind
from conman.services.conflicts import Merged
from conman.workflows.revalidation import RevalidationWorkflow

CONFLICTS = tuple(
    Conflict(f"entities/a-file-with-quite-a-long-name-{number}.json", ConflictKind.CONTENT, "1" * 40, "2" * 40, "3" * 40)
    for number in range(5000)
)
ENTRIES = [
    Entry(
        changeset_id=f"cs-{number}",
        author_user_id="ann",
        revision_number=1,
        head_sha=f"head-{number}",
        base_sha="base",
        queued_at="2026-03-01T09:30:00.000Z",
        judged_sha="base",
        job_id=f"job-{number}",
    )
    for number in range(8)
]


@pytest.fixture
def activity(monkeypatch: pytest.MonkeyPatch) -> git.GitActivities:
    async def branch(*_: Any) -> tuple[str, str]:
        return "repo", "refs/heads/main"

    async def merge(*arguments: Any) -> Merged:
        head = arguments[4]
        return Merged("merged") if head == "head-7" else Merged(None, CONFLICTS)

    monkeypatch.setattr(git, "integration_branch", branch)
    monkeypatch.setattr(git, "merge_onto", merge)
    none: Any = None
    return git.GitActivities(none, none)


def test_of_many_conflicts_the_first_are_told() -> None:
    told = merging.conflict_records(CONFLICTS)
    assert 500 < len(told) < len(CONFLICTS)
    assert [one["path"] for one in told] == [one.path for one in CONFLICTS[: len(told)]]
    assert merging.conflict_records(CONFLICTS[:3]) == merging.conflict_records(CONFLICTS)[:3]


async def test_a_page_whose_conflicts_are_too_many_ends_early_and_the_next_one_goes_on(activity: git.GitActivities) -> None:
    sweep = RevalidationWorkflow(SweepStart(app_id="app", epoch=1, integration_sha="main", entries=ENTRIES))
    sweep.unjudged = {entry.job_id or "": entry for entry in ENTRIES}
    pages = 0
    while ahead := [entry for job_id, entry in sweep.unjudged.items() if job_id not in sweep.merged]:
        request = TrialRequest(app_id="app", integration_sha="main", entries=ahead)
        reply: TrialReply = await ActivityEnvironment().run(activity.trial_merges, request)
        assert len(reply.model_dump_json()) < 1024 * 1024, "Temporal takes 2 MiB"
        sweep._take_merges(ahead, reply)  # pyright: ignore[reportPrivateUsage]
        pages += 1
    assert pages > 1
    assert [verdict.changeset_id for verdict in sweep.outbox] == [f"cs-{number}" for number in range(7)]
    assert sweep.merged == {"job-7": "merged"}

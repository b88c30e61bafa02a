"""The scheduled look for what temp envs have left behind or lost (`spec.md` 13)."""

from __future__ import annotations

from temporalio import workflow

from conman.workflows import options

TEMP_ORPHANS_ID = "conman-temp-orphans"


@workflow.defn(name="temp-orphans")
class TempOrphansWorkflow:
    """Arrives: nothing. Waits for: one round over servers, repositories and profiles."""

    @workflow.run
    async def run(self) -> dict[str, int]:
        """One round; returns how much was found of each kind."""
        return await workflow.execute_activity(
            "sweep_temp_orphans", result_type=dict[str, int], **options.git(summary="look for orphans of temp envs")
        )

"""The scheduled upkeep: deliver what crashes left, start workflows that are missing (`durability.md` 3, 20, 25)."""

from __future__ import annotations

from temporalio import workflow

from conman.workflows import options

UPKEEP_ID = "conman-upkeep"


@workflow.defn(name="upkeep")
class UpkeepWorkflow:
    """Arrives: nothing. Waits for: one sweep over `outgoing` entries and one over records without a workflow."""

    @workflow.run
    async def run(self) -> dict[str, int]:
        """One round; returns how many entries were delivered and workflows started."""
        delivered = await workflow.execute_activity("sweep_outgoing", result_type=int, **options.bulk())
        started = await workflow.execute_activity("start_missing", result_type=int, **options.call())
        return {"delivered": delivered, "started": started}

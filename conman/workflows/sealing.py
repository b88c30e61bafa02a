"""The scheduled sealing of the audit (`spec.md` 14; docs/adr/0035-the-audit-is-a-chain.md)."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ActivityError

from conman.workflows import options

SEALING_ID = "conman-audit-sealing"


@workflow.defn(name="audit_sealing")
class AuditSealingWorkflow:
    """Arrives: nothing. Waits for: a round of sealing, and for a while for the anchors in the repositories."""

    @workflow.run
    async def run(self) -> dict[str, int]:
        """One round; returns how many events were sealed and chains anchored."""
        sealed = await workflow.execute_activity("seal_audit", result_type=int, **options.bulk())
        try:
            anchored = await workflow.execute_activity("anchor_audit", result_type=int, **options.anchor())
        except ActivityError as error:
            # No worker for Git, or none that ends in time: the next round must not wait, and finds the chains as they are.
            workflow.logger.warning("audit_not_anchored", extra={"problem": str(error.cause or error)})
            anchored = 0
        return {"sealed": sealed, "anchored": anchored}

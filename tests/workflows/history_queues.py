"""Scenarios of queues whose histories are recorded, beside those of `history_scenarios.py`."""

from __future__ import annotations

from workflow_names import sha, uid
from workflow_samples import entry, queue, queue_shown
from workflow_world import World

from conman.domain.messages import IntegrationMovedCommand, PublishedCommand


async def queue_branch_moved(world: World) -> dict[str, str]:
    """The branch is moved outside Conman while two are queued, then a release is published on it."""
    entity = queue(world, entry("a"), entry("b", reserved_by=uid("release")))
    await world.do(entity, "integration_moved", IntegrationMovedCommand, old_sha=sha("main-1"), new_sha=sha("main-2"))
    await world.until(lambda: queue_shown(world).sweep is None and not queue_shown(world).undelivered, "the verdicts")
    await world.do(entity, "integration_moved", IntegrationMovedCommand, old_sha=sha("main-1"), new_sha=sha("main-2"))
    await world.do(entity, "published", PublishedCommand, release_id=uid("release"), integration_sha=sha("main-3"))
    await world.until(lambda: queue_shown(world).sweep is None and not queue_shown(world).undelivered, "the rest is judged")
    return {"queue-branch-moved": entity.workflow_id}


QUEUES = [queue_branch_moved]

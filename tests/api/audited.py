"""What the audit says of each request that changes something, written by hand from `api.md` 5 and from nothing in `conman`.

Each line is a route and the events that one request to it leaves in its own name: with its request id, its actor, and an entity
that the request or its answer names. What processes do later, because of it, is in the name of the process.
"""

from __future__ import annotations

import re
from typing import Any

from tests.api.keyed_requests import Request
from tests.support.conman_stack import World

_TABLE = """
POST   /auth/login                              user.logged_in
POST   /auth/logout                             user.logged_out
POST   /auth/forgot-password                    user.password_reset_requested
POST   /auth/reset-password                     user.password_reset
POST   /auth/accept-invite                      user.created invite.accepted membership.added user.logged_in
PATCH  /me                                      user.updated user.password_changed
PATCH  /me/notification-preferences             notification_preference.updated
POST   /users                                   user.created
PATCH  /users/{user}                            user.disabled
POST   /apps                                    app.created membership.added runtime_profile.created*4

PATCH  A/settings                               app.settings_updated
DELETE A                                        app.archived
POST   A/members                                membership.added
PATCH  A/members/{user}                         membership.role_changed
DELETE A/members/{user}                         membership.removed
POST   A/invites                                invite.created
POST   A/invites/{invite}/resend                invite.resent
DELETE A/invites/{invite}                       invite.revoked
PATCH  A/environments                           app.environments_updated runtime_profile.created

POST   A/workspaces                             workspace.created
PATCH  A/workspaces/{ws}                        workspace.updated
DELETE A/workspaces/{ws}                        workspace.deleted
POST   A/workspaces/{ws}/reset                  workspace.reset
POST   A/workspaces/{ws}/sync-integration       file.checkpoint
PUT    A/workspaces/{ws}/files                  file.written
POST   A/workspaces/{ws}/files/batch            file.written file.deleted
DELETE A/workspaces/{ws}/files                  file.deleted
POST   A/workspaces/{ws}/checkpoints            file.checkpoint

POST   A/changesets                             changeset.created
PATCH  A/changesets/{cs}                        changeset.updated
DELETE A/changesets/{cs}                        changeset.withdrawn
POST   A/changesets/{cs}/submit                 file.checkpoint changeset.submitted
POST   A/changesets/{cs}/resubmit               file.checkpoint changeset.resubmitted
POST   A/changesets/{cs}/review                 changeset.approved
POST   A/changesets/{cs}/request-review         changeset.review_requested
POST   A/changesets/{cs}/queue                  changeset.queued
POST   A/changesets/{cs}/move-to-draft          changeset.moved_to_draft
POST   A/changesets/{cs}/revalidate
POST   A/changesets/{cs}/comments               comment.created
PATCH  A/changesets/{cs}/comments/{comment}     comment.edited comment.resolved
POST   A/changesets/{cs}/analyze
POST   A/changesets/{cs}/chat
PUT    A/changesets/{cs}/profile-overrides      changeset.overrides_updated
POST   A/queue/reorder                          queue.reordered

POST   A/releases                               release.created
DELETE A/releases/{r}                           release.dropped
POST   A/releases/{r}/changesets                release.changesets_modified
POST   A/releases/{r}/reorder                   release.reordered
POST   A/releases/{r}/assemble
POST   A/releases/{r}/publish                   release.published

POST   A/environments/{env}/plan
POST   A/environments/{env}/clear               environment.release_cleared
POST   A/hold                                   app.held
DELETE A/hold                                   app.released_from_hold
POST   A/environments/{env}/deploy              deployment.requested
POST   A/environments/{env}/promote             deployment.requested
POST   A/environments/{env}/rollback            deployment.requested
POST   A/environments/{env}/drift-check
POST   A/environments/{env}/create-drift-fix-changeset   workspace.created changeset.created changeset.overrides_updated
POST   A/deployments                            deployment.requested deployment.requested
POST   A/deployments/{d}/approve                deployment.approved
POST   A/deployments/{d}/revalidate             deployment.revalidated
POST   A/deployments/{d}/cancel                 deployment.canceled

POST   A/runtime-profiles                       runtime_profile.created
PATCH  A/runtime-profiles/{p}                   runtime_profile.updated
DELETE A/runtime-profiles/{p}                   runtime_profile.deleted
POST   A/runtime-profiles/{p}/revert            runtime_profile.reverted
POST   A/runtime-profiles/{p}/rotate-key        runtime_profile.key_rotated
POST   A/runtime-profiles/{p}/secrets/{key}/reveal       runtime_profile.secret_revealed

POST   A/temp-envs                              file.checkpoint temp_environment.created
DELETE A/temp-envs/{t}                          temp_environment.expired
POST   A/temp-envs/{t}/extend                   temp_environment.extended
POST   A/temp-envs/{t}/undo-expire              temp_environment.undo_expired
POST   A/temp-envs/{t}/recreate                 temp_environment.recreated
POST   A/temp-envs/{t}/open

POST   A/jobs/{j}/cancel                        job.canceled
POST   A/jobs/{j}/retry                         job.retried
"""


def _parsed(text: str) -> dict[str, list[str]]:
    rules: dict[str, list[str]] = {}
    for line in filter(None, text.splitlines()):
        method, path, *actions = line.split()
        route = f"{method} {re.sub('^A', '/apps/{app}', path)}"
        rules[route] = [action for word in actions for action in _times(word)]
    return rules


def _times(word: str) -> list[str]:
    """`a.b*4` is four of them."""
    action, _, number = word.partition("*")
    return [action] * int(number or 1)


AUDITED = _parsed(_TABLE)
"""Route → the events of one request to it."""

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


async def events_of(world: World, request_ids: list[str]) -> list[dict[str, Any]]:
    """The events in the name of these requests, in order."""
    return await world.stack.db["audit"].find({"context.request_id": {"$in": request_ids}}).sort("_id", 1).to_list()


def names_of(events: list[dict[str, Any]]) -> list[str]:
    return sorted(f"{event['entity_type']}.{event['action']}" for event in events)


def check_events(route: str, events: list[dict[str, Any]], actor: str | None, named: str) -> None:
    """They are those of the table and no others, by this actor, and about things that the text `named` names.

    A membership is named by its member, and the profile of a new environment by nothing yet.
    """
    assert names_of(events) == sorted(AUDITED[route])
    assert {event["actor_user_id"] for event in events} <= {actor}
    known = set(_ID.findall(named))
    for event in events:
        what = ((event["before"] or event["after"])["user_id"]) if event["entity_type"] == "membership" else event["entity_id"]
        assert what in known or (event["entity_type"] == "runtime_profile" and "runtime-profiles" not in route), event
        assert event["context"]["ip"] and event["context"]["user_agent"], event


def check_request(route: str, request: Request, events: list[dict[str, Any]], reply: str) -> None:
    """As `check_events`, of a request with its answer."""
    check_events(route, events, request.person.id, f"{request.path} {request.body} {reply} {request.person.id}")

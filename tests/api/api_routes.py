"""Every route of the server, as the tests that hold for all of them walk it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi.routing import APIRoute

from conman.api.access import _dependencies
from conman.api.app import ROUTERS
from conman.api.body import Body
from conman.domain.roles import Capability

NOWHERE = str(uuid.UUID(int=0))
"""An id that nothing has."""


@dataclass(frozen=True)
class Route:
    """One method of one path, who may call it, and the body that it takes."""

    method: str
    path: str
    access: str
    model: type[Body] | None
    is_list: bool
    query: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def capabilities(self) -> list[Capability]:
        """The capability for one's own things, and where there is one that for others'."""
        return [Capability(name) for name in self.access.split("+") if name not in ("public", "logged_in")]

    @property
    def ids(self) -> list[str]:
        """The names of the ids in the path, without the app's."""
        return [name for name in re.findall(r"\{(\w+)\}", self.path) if name != "app"]

    @property
    def of_app(self) -> bool:
        """Whether it is a route of one app."""
        return self.path.startswith("/apps/{app}")

    def at(self, app_id: str, ids: dict[str, str] | None = None) -> str:
        """The path in this app, with these ids, or ones that nothing has."""
        known = {"app": app_id} | (ids or {})
        return re.sub(r"\{(\w+)\}", lambda found: known.get(found[1], NOWHERE), self.path)


def _routes() -> Iterator[Route]:
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            calls = list(_dependencies(route.dependant))
            access = next(call.access for call in calls if hasattr(call, "access"))
            model = next((call.body_model for call in calls if hasattr(call, "body_model")), None)
            query = tuple(parameter.alias for parameter in route.dependant.query_params)
            for method in sorted(route.methods or ()):
                yield Route(method, route.path, access, model, "page" in query, query)


ROUTES = list(_routes())
OF_APPS = [route for route in ROUTES if route.of_app]
GUARDED = [route for route in ROUTES if route.access != "public"]
WITH_IDS = [route for route in OF_APPS if route.ids]
WITH_BODY = [route for route in ROUTES if route.model is not None]
LISTS = [route for route in ROUTES if route.is_list]
MUTATING = [route for route in GUARDED if route.method not in ("GET", "HEAD")]

_SOUND: dict[str, dict[str, Any]] = {
    "POST /auth/login": {"email": "nobody@example.com", "password": "no password of anybody"},
    "POST /auth/forgot-password": {"email": "nobody@example.com"},
    "POST /auth/reset-password": {"token": "no token of anybody", "password": "long enough to be one"},
    "POST /auth/accept-invite": {"token": "no token of anybody", "name": "sound", "password": "long enough to be one"},
    "PATCH /me/notification-preferences": {"email_enabled": True},
    "POST /users": {"email": "new@example.com", "name": "new", "password": "long enough to be one"},
    "POST /apps": {"name": "sound", "repo_path": "sound.git"},
    "PATCH /apps/{app}/settings": {
        "required_approval_count": 2,
        "blocked_paths": ["secret/"],
        "webhook": {"url": "https://example.com/hook", "events": ["release.published"]},
        "env_defaults": {"MODE": {"type": "string", "value": "sound"}},
        "validation_gates": {"submit": {"command": "builtin"}},
        "version": 1,
    },
    "PATCH /apps/{app}/environments": {
        "environments": [
            {
                "id": NOWHERE,
                "name": "sound",
                "is_canonical": True,
                "runtime_profile_id": NOWHERE,
                "freeze_windows": [
                    {"name": "w", "timezone": "UTC", "from": "2030-01-01T00:00:00Z", "to": "2030-01-02T00:00:00Z"},
                    {"name": "c", "timezone": "UTC", "cron": "0 0 * * 5", "duration_minutes": 60},
                ],
                "required_approvals": {"count": 1, "role": "reviewer"},
            }
        ],
        "version": 1,
    },
    "POST /apps/{app}/members": {"user_id": NOWHERE, "role": "user"},
    "PATCH /apps/{app}/members/{user}": {"role": "user"},
    "POST /apps/{app}/invites": {"email": "invited@example.com", "role": "user"},
    "POST /apps/{app}/runtime-profiles": {
        "name": "sound",
        "kind": "persistent_env",
        "base_url": "https://example.com",
        "env_vars": {"PORT": {"type": "number", "value": 8080}},
        "secrets": {"TOKEN": "sound"},
        "database": {"engine": "mongodb", "connection_ref": "TOKEN", "provisioning_mode": "empty", "base_profile_id": NOWHERE},
        "data_strategy": {"seed_mode": "none"},
        "lifecycle": {"ttl_idle_hours": 4, "auto_cleanup": True},
    },
    "PATCH /apps/{app}/runtime-profiles/{p}": {
        "env_vars": {"MODE": {"type": "string", "value": "sound"}},
        "database": {"engine": "mongodb", "connection_ref": "TOKEN", "provisioning_mode": "empty", "base_profile_id": NOWHERE},
        "version": 1,
    },
    "POST /apps/{app}/runtime-profiles/{p}/revert": {"revision_number": 1},
    "POST /apps/{app}/workspaces": {"title": "sound"},
    "PUT /apps/{app}/workspaces/{ws}/files": {"path": "a.json", "content": "e30="},
    "DELETE /apps/{app}/workspaces/{ws}/files": {"path": "a.json"},
    "POST /apps/{app}/workspaces/{ws}/files/batch": {
        "changes": [
            {"action": "write", "path": "a.json", "content": "e30=", "expected_blob_id": "0" * 40},
            {"action": "move", "path": "a.json", "to": "b.json"},
        ]
    },
    "PATCH /apps/{app}/workspaces/{ws}": {"title": "sound"},
    "POST /apps/{app}/workspaces/{ws}/checkpoints": {"message": "sound"},
    "POST /apps/{app}/workspaces/{ws}/sync-integration": {"strategy": "merge"},
    "POST /apps/{app}/changesets": {"workspace_id": NOWHERE, "title": "sound"},
    "PATCH /apps/{app}/changesets/{cs}": {"title": "sound"},
    "POST /apps/{app}/changesets/{cs}/review": {"action": "request_changes"},
    "POST /apps/{app}/changesets/{cs}/comments": {"body": "sound"},
    "PATCH /apps/{app}/changesets/{cs}/comments/{comment}": {"body": "sound", "resolved": True},
    "PUT /apps/{app}/changesets/{cs}/profile-overrides": {
        "overrides": [
            {
                "target_environment_id": NOWHERE,
                "env_vars": {"MODE": {"type": "string", "value": "sound"}, "OLD": None},
                "secrets": {"TOKEN": "sound"},
                "base_url": "https://example.com",
                "database": {
                    "engine": "mongodb",
                    "connection_ref": "TOKEN",
                    "provisioning_mode": "empty",
                    "base_profile_id": NOWHERE,
                },
                "data_strategy": {"seed_mode": "none"},
            },
            {"target_profile_id": NOWHERE, "base_url": None},
        ],
        "version": 1,
    },
    "POST /apps/{app}/changesets/{cs}/request-review": {"user_id": NOWHERE},
    "POST /apps/{app}/changesets/{cs}/analyze": {"focus": "sound"},
    "POST /apps/{app}/changesets/{cs}/chat": {"message": "sound", "file_paths": ["a.json"]},
    "POST /apps/{app}/queue/reorder": {"ordered_changeset_ids": []},
    "POST /apps/{app}/releases": {"changeset_ids": []},
    "POST /apps/{app}/releases/{r}/changesets": {"changeset_ids": []},
    "POST /apps/{app}/releases/{r}/reorder": {"ordered_changeset_ids": []},
    "POST /apps/{app}/environments/{env}/deploy": {"release_id": NOWHERE},
    "POST /apps/{app}/environments/{env}/promote": {"release_id": NOWHERE},
    "POST /apps/{app}/environments/{env}/rollback": {"release_id": NOWHERE, "mode": "redeploy_prior_tag"},
    "POST /apps/{app}/environments/{env}/create-drift-fix-changeset": {"deployment_id": NOWHERE},
    "POST /apps/{app}/environments/{env}/plan": {"release_id": NOWHERE},
    "POST /apps/{app}/environments/{env}/clear": {"release_id": NOWHERE},
    "POST /apps/{app}/deployments": {"release_id": NOWHERE, "environment_ids": [NOWHERE], "not_before": "2030-01-01T00:00:00Z"},
    "POST /apps/{app}/temp-envs": {"kind": "changeset", "source_id": NOWHERE, "base_profile_id": NOWHERE},
    "POST /apps/{app}/temp-envs/{t}/extend": {"seconds": 3600},
    "POST /apps/{app}/hold": {"reason": "sound", "until": "2100-01-01T00:00:00Z"},
}


def sample(route: Route) -> dict[str, Any]:
    """What is listed as the route's sound body; {} where nothing is."""
    return _SOUND.get(str(route), {})


def sound_body(route: Route) -> dict[str, Any]:
    """A body that the route's model takes."""
    body = sample(route)
    if route.model is not None:
        route.model.model_validate(body)
    return body

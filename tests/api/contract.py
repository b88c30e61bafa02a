"""Who may call what, written by hand from `api.md` 2 and 3 and from nothing in `conman`.

A line is a route and its least role. `own/any` are the least roles for what is one's own and for what others made; `-` is nobody
(`user/-`: only its maker; `-/reviewer`: anybody but its maker). Outside apps: `anyone`, `account` (logged in), `platform`.
`A` is `/apps/{app}`; the names of the other ids do not count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ROLES = ("user", "reviewer", "config_manager", "app_admin")

_SERVED = """
GET    /health                                  anyone
GET    /health/live                             anyone
POST   /auth/login                              anyone
POST   /auth/logout                             account
POST   /auth/forgot-password                    anyone
POST   /auth/reset-password                     anyone
POST   /auth/accept-invite                      anyone
GET    /me                                      account
PATCH  /me                                      account
GET    /me/notification-preferences             account
PATCH  /me/notification-preferences             account
GET    /users                                   platform
POST   /users                                   platform
PATCH  /users/{user}                            platform
GET    /audit                                   platform
GET    /apps                                    account
POST   /apps                                    platform

GET    A                                        user
PATCH  A/settings                               app_admin
DELETE A                                        app_admin
GET    A/members                                user
POST   A/members                                app_admin
PATCH  A/members/{user}                         app_admin
DELETE A/members/{user}                         app_admin
GET    A/invites                                app_admin
POST   A/invites                                app_admin
POST   A/invites/{invite}/resend                app_admin
DELETE A/invites/{invite}                       app_admin
GET    A/environments                           user
PATCH  A/environments                           app_admin

GET    A/workspaces                             user
POST   A/workspaces                             user
GET    A/workspaces/{ws}                        user/app_admin
PATCH  A/workspaces/{ws}                        user/app_admin
DELETE A/workspaces/{ws}                        user/app_admin
POST   A/workspaces/{ws}/reset                  user/app_admin
POST   A/workspaces/{ws}/sync-integration       user/app_admin
GET    A/workspaces/{ws}/files                  user/app_admin
GET    A/workspaces/{ws}/files/raw              user/app_admin
PUT    A/workspaces/{ws}/files                  user/app_admin
POST   A/workspaces/{ws}/files/batch            user/app_admin
DELETE A/workspaces/{ws}/files                  user/app_admin
POST   A/workspaces/{ws}/checkpoints            user/app_admin
GET    A/workspaces/{ws}/diff                   user/app_admin

GET    A/changesets                             user
POST   A/changesets                             user
GET    A/changesets/{cs}                        user
PATCH  A/changesets/{cs}                        user/-
DELETE A/changesets/{cs}                        user/config_manager
POST   A/changesets/{cs}/submit                 user/app_admin
POST   A/changesets/{cs}/resubmit               user/app_admin
POST   A/changesets/{cs}/review                 -/reviewer
POST   A/changesets/{cs}/request-review         user/-
POST   A/changesets/{cs}/queue                  user/config_manager
GET    A/changesets/{cs}/timeline               user
POST   A/changesets/{cs}/move-to-draft          user/config_manager
POST   A/changesets/{cs}/revalidate             user/config_manager
GET    A/changesets/{cs}/revisions              user
GET    A/changesets/{cs}/reviews                user
GET    A/changesets/{cs}/diff                   user
GET    A/changesets/{cs}/comments               user
POST   A/changesets/{cs}/comments               user
PATCH  A/changesets/{cs}/comments/{comment}     user
GET    A/changesets/{cs}/comments/{comment}/revisions   user
POST   A/changesets/{cs}/analyze                user
POST   A/changesets/{cs}/chat                   user
GET    A/changesets/{cs}/profile-overrides      user
PUT    A/changesets/{cs}/profile-overrides      user/-
GET    A/queue                                  user
POST   A/queue/reorder                          config_manager

GET    A/releases                               user
POST   A/releases                               config_manager
GET    A/releases/{r}                           user
DELETE A/releases/{r}                           config_manager
POST   A/releases/{r}/changesets                config_manager
POST   A/releases/{r}/reorder                   config_manager
POST   A/releases/{r}/assemble                  config_manager
POST   A/releases/{r}/publish                   config_manager
GET    A/releases/{r}/diff                      user
GET    A/releases/{r}/notes                     user

POST   A/environments/{env}/plan                user
POST   A/environments/{env}/clear               config_manager
GET    A/hold                                   user
POST   A/hold                                   config_manager
DELETE A/hold                                   config_manager
POST   A/environments/{env}/deploy              config_manager
POST   A/environments/{env}/promote             config_manager
POST   A/environments/{env}/rollback            config_manager
POST   A/environments/{env}/drift-check         config_manager
POST   A/environments/{env}/create-drift-fix-changeset   config_manager
GET    A/environments/{env}/migrations          user
POST   A/deployments                            config_manager
GET    A/deployments                            user
GET    A/deployments/{d}                        user
POST   A/deployments/{d}/approve                reviewer
POST   A/deployments/{d}/revalidate             config_manager
POST   A/deployments/{d}/cancel                 config_manager

GET    A/runtime-profiles                       user
POST   A/runtime-profiles                       app_admin
GET    A/runtime-profiles/{p}                   user
PATCH  A/runtime-profiles/{p}                   app_admin
DELETE A/runtime-profiles/{p}                   app_admin
GET    A/runtime-profiles/{p}/revisions         user
GET    A/runtime-profiles/{p}/diff              user
GET    A/runtime-profiles/{p}/effective         user
POST   A/runtime-profiles/{p}/revert            app_admin
POST   A/runtime-profiles/{p}/rotate-key        app_admin
POST   A/runtime-profiles/{p}/secrets/{key}/reveal   app_admin

GET    A/temp-envs                              user
POST   A/temp-envs                              user/config_manager
GET    A/temp-envs/{t}                          user
DELETE A/temp-envs/{t}                          user/config_manager
POST   A/temp-envs/{t}/extend                   user/config_manager
POST   A/temp-envs/{t}/undo-expire              user/config_manager
POST   A/temp-envs/{t}/recreate                 user/config_manager
POST   A/temp-envs/{t}/open                     user

GET    A/jobs                                   user
GET    A/jobs/{j}                               user
GET    A/jobs/{j}/logs                          user
GET    A/jobs/{j}/logs/stream                   user
POST   A/jobs/{j}/cancel                        user/config_manager
POST   A/jobs/{j}/retry                         user/config_manager
GET    A/events                                 user
GET    A/audit                                  app_admin
GET    A/audit/verify                           app_admin
"""

_NOT_SERVED_YET = """
GET    /metrics                                 anyone
"""


@dataclass(frozen=True)
class Rule:
    """Who may: the least roles for one's own things and for what others made; None is nobody."""

    own: str | None
    any: str | None

    @property
    def least(self) -> str:
        """Without this one, nothing that the route names helps."""
        return self.own or self.any or ""

    def admits(self, role: str, *, is_own: bool) -> bool:
        """Whether a member may do this to what is theirs, or others'."""
        least = self.own if is_own else self.any
        return least is not None and ROLES.index(role) >= ROLES.index(least)


def nameless(route: str) -> str:
    """A route whose ids have lost their names."""
    return re.sub(r"\{\w+\}", "{}", route)


def _parsed(text: str) -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    for line in filter(None, text.splitlines()):
        method, path, least = line.split()
        own, slash, others = least.partition("/")
        rule = Rule(*(None if role == "-" else role for role in (own, others if slash else own)))
        route = nameless(f"{method} {re.sub('^A', '/apps/{app}', path)}")
        assert route not in rules, route
        rules[route] = rule
    return rules


SERVED = _parsed(_SERVED)
"""Route, its ids without names → who may."""
NOT_SERVED_YET = _parsed(_NOT_SERVED_YET)
"""What the contract has and this version does not serve: a route that is served moves up."""

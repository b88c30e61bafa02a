"""Links in mails, all below one public URL."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from conman.config import Settings
from conman.domain.addresses import is_loopback
from conman.domain.notification import TOKEN_PATHS, Notice, NoticeKind

PREFERENCES_PATH = "/me/notification-preferences"
_CHANGESET = "/apps/{app_id}/changesets/{entity_id}"
_DEPLOYMENT = "/apps/{app_id}/deployments/{entity_id}"
_ENVIRONMENT = "/apps/{app_id}/environments/{entity_id}"
_RELEASE = "/apps/{app_id}/releases/{entity_id}"
_PROFILE = "/apps/{app_id}/runtime-profiles/{entity_id}"
_TEMP_ENV = "/apps/{app_id}/temp-envs/{entity_id}"
NOTICE_PATHS = {
    NoticeKind.CHANGESET_SUBMITTED: _CHANGESET,
    NoticeKind.CHANGESET_GATE_FAILED: _CHANGESET,
    NoticeKind.CHANGESET_APPROVED: _CHANGESET,
    NoticeKind.CHANGESET_CHANGES_REQUESTED: _CHANGESET,
    NoticeKind.CHANGESET_REJECTED: _CHANGESET,
    NoticeKind.CHANGESET_QUEUED: _CHANGESET,
    NoticeKind.CHANGESET_CONFLICTED: _CHANGESET,
    NoticeKind.CHANGESET_NEEDS_REVALIDATION: _CHANGESET,
    NoticeKind.REVIEW_REQUESTED: _CHANGESET,
    NoticeKind.REVIEW_REMINDER: _CHANGESET,
    NoticeKind.RELEASE_CREATED: _RELEASE,
    NoticeKind.RELEASE_PUBLISHED: _RELEASE,
    NoticeKind.RUNTIME_PROFILE_CHANGED: _PROFILE,
    NoticeKind.DEPLOYMENT_WAITS_FOR_APPROVAL: _DEPLOYMENT,
    NoticeKind.DEPLOYMENT_WARNING: _DEPLOYMENT,
    NoticeKind.DEPLOYMENT_BLOCKED_BY_DRIFT: _DEPLOYMENT,
    NoticeKind.DEPLOYMENT_STARTED: _DEPLOYMENT,
    NoticeKind.DEPLOYMENT_SUCCEEDED: _DEPLOYMENT,
    NoticeKind.DEPLOYMENT_FAILED: _DEPLOYMENT,
    NoticeKind.DEPLOYMENT_CANCELED: _DEPLOYMENT,
    NoticeKind.DEPLOYMENT_AUTO_ROLLED_BACK: _DEPLOYMENT,
    NoticeKind.DEPLOYMENT_HEALED: _DEPLOYMENT,
    NoticeKind.DRIFT_DETECTED: _ENVIRONMENT,
    NoticeKind.DRIFT_HEAL_STOPPED: _ENVIRONMENT,
    NoticeKind.TEMP_ENV_WARNING: _TEMP_ENV,
    NoticeKind.TEMP_ENV_EXPIRING: _TEMP_ENV,
    NoticeKind.TEMP_ENV_EXPIRED: _TEMP_ENV,
    NoticeKind.TEMP_ENV_PROVISION_FAILED: _TEMP_ENV,
    NoticeKind.TEMP_ENV_CLEAN_UP_FAILED: _TEMP_ENV,
}
"""The page of what a notice tells of, below `CONMAN_PUBLIC_URL`, for those kinds that have one."""
_EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def public_base(settings: Settings) -> str:
    """`CONMAN_PUBLIC_URL`, or the address of the API as this machine reaches it; without a slash at its end."""
    if settings.public_url is not None:
        return settings.public_url
    host = _EVERY_INTERFACE.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def public_host(settings: Settings) -> str:
    """The host of the public URL, as it stands in a Message-ID: an IPv6 address in brackets."""
    host = urlsplit(public_base(settings)).hostname or "localhost"
    return f"[{host}]" if ":" in host else host


def sender(settings: Settings) -> str:
    """`CONMAN_MAIL_FROM`, or conman@ the public host; an address without a name is no domain of a mailbox."""
    if settings.mail_from is not None:
        return settings.mail_from
    host = public_host(settings)
    numeric = host.startswith("[") or host.replace(".", "").isdigit() or is_loopback(host)
    return f"Conman <conman@{'localhost' if numeric else host}>"


def notice_link(base: str, notice: Notice, token: str | None) -> str:
    """Where a notice's mail leads: the page that takes its token, that of what it tells of, else Conman itself.

    Only a token's mail holds a token.
    """
    if notice.token is not None and token is not None:
        return f"{base}{TOKEN_PATHS[notice.token.purpose]}?token={quote(token, safe='')}"
    path = NOTICE_PATHS.get(notice.kind, "/")
    return base + path.format(app_id=quote(notice.app_id or "", safe=""), entity_id=quote(notice.entity_id, safe=""))


def preferences_link(base: str) -> str:
    """Where somebody chooses which mails to get."""
    return base + PREFERENCES_PATH

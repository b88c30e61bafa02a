"""What the mails of all kinds say in tests and in the pictures of the docs: one set of words for all templates."""

from __future__ import annotations

from dataclasses import replace

from conman.domain.notification import TOKEN_PATHS, Notice, NoticeKind, TokenRef
from conman.domain.tokens import TokenPurpose, make_token
from conman.mail.links import notice_link
from conman.mail.rendering import Words

AT = "2026-01-31T09:30:00.000Z"
TOKEN = make_token("s" * 40, TokenPurpose.INVITE, "record", 1)
DATA = {
    "title": "Higher limits",
    "revision_number": 2,
    "kind": "promote",
    "role": "config_manager",
    "approvals_required": 2,
    "approvals_expire_at": "2026-02-01T09:30:00.000Z",
    "not_before": "2026-02-01T08:00:00.000Z",
    "waits_until": "2026-02-01T10:00:00.000Z",
    "differences": 3,
    "warning": "Production is frozen then.",
    "message": "The health command ended with 1.",
    "expired": True,
    "again": True,
    "hotpatch": False,
    "reason_code": "tests_failed",
    "approval_count": 2,
    "required_approvals": 2,
    "paths": ["limits.yaml", "conf/rates.json"],
    "overrides": ["RATE_LIMIT"],
    "more": 4,
    "tag": "r2026.01.31.1",
    "titles": ["Higher limits", "New tariff"],
    "changesets": 3,
    "reverts_release_id": None,
    "profile_name": "Production",
    "fields": ["env_vars.RATE_LIMIT", "secrets.API_KEY"],
    "environments": ["Production"],
    "reverted_to": None,
    "relinked": False,
    "deleted": False,
    "label": "shop-workspace-amber-otter",
    "url": "https://shop-workspace-amber-otter.temp.conman.test/",
    "expires_at": "2026-02-01T09:30:00.000Z",
    "grace_until": "2026-02-01T10:30:00.000Z",
    "cleaned_up": True,
    "branch": "conman/temp/shop-workspace-amber-otter",
    "db_name": "conman_temp_0199",
    "failures": 1,
}
WORDS = Words(
    link=f"https://conman.test/accept-invite?token={TOKEN}",
    preferences_link="https://conman.test/me/notification-preferences",
    recipient_name="Bob",
    actor_name="Ann",
    app_name="Shop",
    role="config_manager",
    expires_at="2026-02-07T09:30:00.000Z",
    data=DATA,
    environment_name="Production",
    release_tag="r2026.01.31.1",
    requester_name="Eve",
    author_name="Cem",
)
BARE = replace(
    WORDS,
    recipient_name=None,
    actor_name=None,
    app_name=None,
    role=None,
    expires_at=None,
    data={
        **DATA,
        "role": None,
        "approvals_required": 1,
        "approvals_expire_at": None,
        "waits_until": None,
        "message": None,
        "expired": False,
        "again": False,
        "reason_code": None,
        "paths": [],
        "overrides": [],
        "more": 0,
        "titles": [],
        "changesets": 0,
        "reverts_release_id": "another release",
        "fields": [],
        "environments": [],
        "grace_until": None,
        "cleaned_up": False,
        "db_name": None,
        "failures": 0,
    },
    environment_name=None,
    release_tag=None,
    requester_name=None,
    author_name=None,
)
"""The same where nothing is known that a mail can do without."""

_PURPOSES = {NoticeKind.INVITE: TokenPurpose.INVITE, NoticeKind.PASSWORD_RESET: TokenPurpose.PASSWORD_RESET}


def words_of(kind: NoticeKind) -> Words:
    """The words with the link that a mail of this kind really has; its token is one that no server takes."""
    purpose = _PURPOSES.get(kind, TokenPurpose.PASSWORD_RESET if kind is NoticeKind.ACCOUNT_CREATED else None)
    token = None if purpose is None else TokenRef(purpose=purpose, record_id="record", number=1)
    about = {"app_id": "shop", "entity_type": "record", "entity_id": "01999999-0000-7000-8000-000000000000"}
    notice = Notice(kind=kind, at=AT, token=token, **about)  # type: ignore[arg-type]
    assert purpose is None or purpose in TOKEN_PATHS
    return replace(WORDS, link=notice_link("https://conman.test", notice, None if token is None else TOKEN))

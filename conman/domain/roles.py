"""Who may do what: the one table `capability → least role` (`api.md` 2, `spec.md` 2).

Roles are per app and each has all that the ones before it have. Everything is denied unless a capability
allows it. *Own* means made by the caller: where the section tells own from others', there are two
capabilities, `…_OWN` and `…_ANY`, and `owned` picks the one that applies. A `…_OWN` capability without an
`…_ANY` is nobody's over what others made.

The platform admin is a flag on the user, not a role: it carries the platform's own capabilities and no rights
inside apps.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Final, Literal


class Role(StrEnum):
    """A member's role in one app, ordered `user < reviewer < config_manager < app_admin` (`spec.md` 2).

    Comparing a role with anything else raises `TypeError`: the alphabet would give a wrong answer.
    """

    USER = "user"
    REVIEWER = "reviewer"
    CONFIG_MANAGER = "config_manager"
    APP_ADMIN = "app_admin"

    @property
    def rank(self) -> int:
        """The role's place in the order, from 0 for `user`."""
        return _ORDER.index(self.value)

    def __lt__(self, other: str, /) -> bool:
        return self.rank < _rank_of(other)

    def __le__(self, other: str, /) -> bool:
        return self.rank <= _rank_of(other)

    def __gt__(self, other: str, /) -> bool:
        return self.rank > _rank_of(other)

    def __ge__(self, other: str, /) -> bool:
        return self.rank >= _rank_of(other)


_ORDER: Final = ("user", "reviewer", "config_manager", "app_admin")


def _rank_of(other: object) -> int:
    if not isinstance(other, Role):
        raise TypeError(f"a Role can't be compared with {type(other).__name__}; make it a Role first")
    return other.rank


class Platform(Enum):
    """The least "role" of what only the platform's own admins may do: P in `api.md` 2."""

    ADMIN = "platform_admin"


class Capability(StrEnum):
    """Everything that a route or a service can ask permission for (`api.md` 2)."""

    # Reading, row 1
    APP_READ = "app.read"
    MEMBER_READ = "member.read"
    FILE_READ = "file.read"
    CHANGESET_READ = "changeset.read"
    DIFF_READ = "diff.read"
    COMMENT_READ = "comment.read"
    QUEUE_READ = "queue.read"
    RELEASE_READ = "release.read"
    ENVIRONMENT_READ = "environment.read"
    DEPLOYMENT_READ = "deployment.read"
    JOB_READ = "job.read"
    TEMP_ENV_READ = "temp_env.read"
    PROFILE_READ = "profile.read"
    EVENT_READ = "event.read"

    # Workspaces, rows 2 and 5
    WORKSPACE_CREATE_OWN = "workspace.create.own"
    WORKSPACE_READ_OWN = "workspace.read.own"
    WORKSPACE_READ_ANY = "workspace.read.any"
    WORKSPACE_EDIT_OWN = "workspace.edit.own"
    WORKSPACE_EDIT_ANY = "workspace.edit.any"
    WORKSPACE_SYNC_OWN = "workspace.sync.own"
    WORKSPACE_SYNC_ANY = "workspace.sync.any"
    WORKSPACE_RESET_OWN = "workspace.reset.own"
    WORKSPACE_RESET_ANY = "workspace.reset.any"
    WORKSPACE_CHECKPOINT_OWN = "workspace.checkpoint.own"
    WORKSPACE_CHECKPOINT_ANY = "workspace.checkpoint.any"
    WORKSPACE_DELETE_OWN = "workspace.delete.own"
    WORKSPACE_DELETE_ANY = "workspace.delete.any"

    # Changesets, rows 2 to 5
    CHANGESET_CREATE_OWN = "changeset.create.own"
    CHANGESET_EDIT_OWN = "changeset.edit.own"
    CHANGESET_OVERRIDES_OWN = "changeset.overrides.own"
    CHANGESET_REQUEST_REVIEW_OWN = "changeset.request_review.own"
    CHANGESET_SUBMIT_OWN = "changeset.submit.own"
    CHANGESET_SUBMIT_ANY = "changeset.submit.any"
    CHANGESET_RESUBMIT_OWN = "changeset.resubmit.own"
    CHANGESET_RESUBMIT_ANY = "changeset.resubmit.any"
    CHANGESET_QUEUE_OWN = "changeset.queue.own"
    CHANGESET_QUEUE_ANY = "changeset.queue.any"
    CHANGESET_TO_DRAFT_OWN = "changeset.to_draft.own"
    CHANGESET_TO_DRAFT_ANY = "changeset.to_draft.any"
    CHANGESET_WITHDRAW_OWN = "changeset.withdraw.own"
    CHANGESET_WITHDRAW_ANY = "changeset.withdraw.any"
    CHANGESET_REVALIDATE_OWN = "changeset.revalidate.own"
    CHANGESET_REVALIDATE_ANY = "changeset.revalidate.any"
    CHANGESET_REVIEW_OTHERS = "changeset.review.others"

    # Comments and the assistant, row 2
    COMMENT_CREATE = "comment.create"
    COMMENT_EDIT_OWN = "comment.edit.own"
    COMMENT_RESOLVE = "comment.resolve"
    ASSISTANT_ANALYZE = "assistant.analyze"
    ASSISTANT_CHAT = "assistant.chat"

    # Gates and jobs, rows 2 and 4
    GATE_CANCEL_OWN = "gate.cancel.own"
    JOB_CANCEL_ANY = "job.cancel.any"
    GATE_RETRY_OWN = "gate.retry.own"
    GATE_RETRY_ANY = "gate.retry.any"

    # Temporary environments, rows 2 and 4: own is one whose source is the caller's own
    TEMP_ENV_OPEN = "temp_env.open"
    TEMP_ENV_CREATE_OWN = "temp_env.create.own"
    TEMP_ENV_CREATE_ANY = "temp_env.create.any"
    TEMP_ENV_EXTEND_OWN = "temp_env.extend.own"
    TEMP_ENV_EXTEND_ANY = "temp_env.extend.any"
    TEMP_ENV_UNDO_OWN = "temp_env.undo.own"
    TEMP_ENV_UNDO_ANY = "temp_env.undo.any"
    TEMP_ENV_RECREATE_OWN = "temp_env.recreate.own"
    TEMP_ENV_RECREATE_ANY = "temp_env.recreate.any"
    TEMP_ENV_DELETE_OWN = "temp_env.delete.own"
    TEMP_ENV_DELETE_ANY = "temp_env.delete.any"

    # Queue, releases and deployments, rows 2 to 4
    QUEUE_REORDER = "queue.reorder"
    RELEASE_MANAGE = "release.manage"
    DEPLOYMENT_PLAN = "deployment.plan"
    DEPLOYMENT_APPROVE = "deployment.approve"
    DEPLOYMENT_DEPLOY = "deployment.deploy"
    DEPLOYMENT_PROMOTE = "deployment.promote"
    DEPLOYMENT_ROLL_BACK = "deployment.roll_back"
    DEPLOYMENT_CANCEL = "deployment.cancel"
    DEPLOYMENT_REVALIDATE = "deployment.revalidate"
    ENVIRONMENT_CLEAR_RELEASE = "environment.clear_release"
    ENVIRONMENT_DRIFT_CHECK = "environment.drift_check"
    ENVIRONMENT_DRIFT_FIX = "environment.drift_fix"
    HOLD_READ = "hold.read"
    HOLD_SET = "hold.set"

    # Administration of an app, row 5
    MEMBER_MANAGE = "member.manage"
    INVITE_MANAGE = "invite.manage"
    SETTINGS_MANAGE = "settings.manage"
    ENVIRONMENT_MANAGE = "environment.manage"
    PROFILE_MANAGE = "profile.manage"
    SECRET_REVEAL = "secret.reveal"
    SECRET_ROTATE = "secret.rotate"
    AUDIT_READ = "audit.read"
    APP_ARCHIVE = "app.archive"

    # The platform, row 6
    APP_CREATE = "platform.app_create"
    USER_MANAGE = "platform.user_manage"
    AUDIT_READ_PLATFORM = "platform.audit_read"


LeastRole = Role | Literal[Platform.ADMIN]

_C = Capability
_BY_LEAST_ROLE: Final[tuple[tuple[LeastRole, tuple[Capability, ...]], ...]] = (
    (
        Role.USER,
        (
            _C.APP_READ,
            _C.MEMBER_READ,
            _C.FILE_READ,
            _C.CHANGESET_READ,
            _C.DIFF_READ,
            _C.COMMENT_READ,
            _C.QUEUE_READ,
            _C.RELEASE_READ,
            _C.ENVIRONMENT_READ,
            _C.DEPLOYMENT_READ,
            _C.JOB_READ,
            _C.TEMP_ENV_READ,
            _C.PROFILE_READ,
            _C.EVENT_READ,
            _C.WORKSPACE_CREATE_OWN,
            _C.WORKSPACE_READ_OWN,
            _C.WORKSPACE_EDIT_OWN,
            _C.WORKSPACE_SYNC_OWN,
            _C.WORKSPACE_RESET_OWN,
            _C.WORKSPACE_CHECKPOINT_OWN,
            _C.WORKSPACE_DELETE_OWN,
            _C.CHANGESET_CREATE_OWN,
            _C.CHANGESET_EDIT_OWN,
            _C.CHANGESET_OVERRIDES_OWN,
            _C.CHANGESET_REQUEST_REVIEW_OWN,
            _C.CHANGESET_SUBMIT_OWN,
            _C.CHANGESET_RESUBMIT_OWN,
            _C.CHANGESET_QUEUE_OWN,
            _C.CHANGESET_TO_DRAFT_OWN,
            _C.CHANGESET_WITHDRAW_OWN,
            _C.CHANGESET_REVALIDATE_OWN,  # spec.md 10: author or config manager
            _C.COMMENT_CREATE,
            _C.COMMENT_EDIT_OWN,
            _C.COMMENT_RESOLVE,
            _C.ASSISTANT_ANALYZE,
            _C.ASSISTANT_CHAT,
            _C.GATE_CANCEL_OWN,
            _C.GATE_RETRY_OWN,
            _C.TEMP_ENV_OPEN,
            _C.TEMP_ENV_CREATE_OWN,
            _C.TEMP_ENV_EXTEND_OWN,
            _C.TEMP_ENV_UNDO_OWN,
            _C.TEMP_ENV_RECREATE_OWN,
            _C.TEMP_ENV_DELETE_OWN,
            _C.DEPLOYMENT_PLAN,
            _C.HOLD_READ,
        ),
    ),
    (Role.REVIEWER, (_C.CHANGESET_REVIEW_OTHERS, _C.DEPLOYMENT_APPROVE)),
    (
        Role.CONFIG_MANAGER,
        (
            _C.CHANGESET_QUEUE_ANY,
            _C.CHANGESET_TO_DRAFT_ANY,
            _C.CHANGESET_WITHDRAW_ANY,
            _C.CHANGESET_REVALIDATE_ANY,  # spec.md 10: author or config manager
            _C.GATE_RETRY_ANY,
            _C.JOB_CANCEL_ANY,
            _C.QUEUE_REORDER,
            _C.RELEASE_MANAGE,
            _C.DEPLOYMENT_DEPLOY,
            _C.DEPLOYMENT_PROMOTE,
            _C.DEPLOYMENT_ROLL_BACK,
            _C.DEPLOYMENT_CANCEL,
            _C.DEPLOYMENT_REVALIDATE,
            _C.ENVIRONMENT_CLEAR_RELEASE,
            _C.ENVIRONMENT_DRIFT_CHECK,
            _C.ENVIRONMENT_DRIFT_FIX,
            _C.HOLD_SET,
            _C.TEMP_ENV_CREATE_ANY,
            _C.TEMP_ENV_EXTEND_ANY,
            _C.TEMP_ENV_UNDO_ANY,
            _C.TEMP_ENV_RECREATE_ANY,
            _C.TEMP_ENV_DELETE_ANY,
        ),
    ),
    (
        Role.APP_ADMIN,
        (
            _C.MEMBER_MANAGE,
            _C.INVITE_MANAGE,
            _C.SETTINGS_MANAGE,
            _C.ENVIRONMENT_MANAGE,
            _C.PROFILE_MANAGE,
            _C.SECRET_REVEAL,
            _C.SECRET_ROTATE,
            _C.AUDIT_READ,
            _C.APP_ARCHIVE,
            _C.WORKSPACE_READ_ANY,
            _C.WORKSPACE_EDIT_ANY,
            _C.WORKSPACE_SYNC_ANY,
            _C.WORKSPACE_RESET_ANY,
            _C.WORKSPACE_CHECKPOINT_ANY,
            _C.WORKSPACE_DELETE_ANY,  # spec.md 5: what a removed member left behind
            _C.CHANGESET_SUBMIT_ANY,
            _C.CHANGESET_RESUBMIT_ANY,
        ),
    ),
    (Platform.ADMIN, (_C.APP_CREATE, _C.USER_MANAGE, _C.AUDIT_READ_PLATFORM)),
)

LEAST_ROLE: Final[Mapping[Capability, LeastRole]] = MappingProxyType(
    {capability: least for least, capabilities in _BY_LEAST_ROLE for capability in capabilities}
)
"""Capability → least role; complete, which a test holds."""

_ANY_OF: Final[Mapping[Capability, Capability]] = MappingProxyType(
    {
        _C.WORKSPACE_READ_OWN: _C.WORKSPACE_READ_ANY,
        _C.WORKSPACE_EDIT_OWN: _C.WORKSPACE_EDIT_ANY,
        _C.WORKSPACE_SYNC_OWN: _C.WORKSPACE_SYNC_ANY,
        _C.WORKSPACE_RESET_OWN: _C.WORKSPACE_RESET_ANY,
        _C.WORKSPACE_CHECKPOINT_OWN: _C.WORKSPACE_CHECKPOINT_ANY,
        _C.WORKSPACE_DELETE_OWN: _C.WORKSPACE_DELETE_ANY,
        _C.CHANGESET_SUBMIT_OWN: _C.CHANGESET_SUBMIT_ANY,
        _C.CHANGESET_RESUBMIT_OWN: _C.CHANGESET_RESUBMIT_ANY,
        _C.CHANGESET_QUEUE_OWN: _C.CHANGESET_QUEUE_ANY,
        _C.CHANGESET_TO_DRAFT_OWN: _C.CHANGESET_TO_DRAFT_ANY,
        _C.CHANGESET_WITHDRAW_OWN: _C.CHANGESET_WITHDRAW_ANY,
        _C.CHANGESET_REVALIDATE_OWN: _C.CHANGESET_REVALIDATE_ANY,
        _C.GATE_CANCEL_OWN: _C.JOB_CANCEL_ANY,
        _C.GATE_RETRY_OWN: _C.GATE_RETRY_ANY,
        _C.TEMP_ENV_CREATE_OWN: _C.TEMP_ENV_CREATE_ANY,
        _C.TEMP_ENV_EXTEND_OWN: _C.TEMP_ENV_EXTEND_ANY,
        _C.TEMP_ENV_UNDO_OWN: _C.TEMP_ENV_UNDO_ANY,
        _C.TEMP_ENV_RECREATE_OWN: _C.TEMP_ENV_RECREATE_ANY,
        _C.TEMP_ENV_DELETE_OWN: _C.TEMP_ENV_DELETE_ANY,
    }
)


def least_role(capability: Capability) -> LeastRole:
    """The least role that has `capability`; `Platform.ADMIN`: only platform admins have it (`api.md` 2)."""
    return LEAST_ROLE[capability]


def allows(role: Role | None, capability: Capability, *, platform_admin: bool = False) -> bool:
    """Whether a member with `role` (None: not a member) has `capability` (`api.md` 2).

    `platform_admin` is the caller's flag: it opens the platform's capabilities, nothing inside an app.
    """
    least = LEAST_ROLE[capability]
    if least is Platform.ADMIN:
        return platform_admin
    return role is not None and role >= least


def owned(capability: Capability, *, is_own: bool) -> Capability | None:
    """What the caller needs for one thing: `capability` (an `…_OWN` one) when it is theirs, else its `…_ANY`.

    None means that nobody may do this to what others made, whatever their role: a changeset's title, a
    comment's body (`api.md` 2).
    """
    return capability if is_own else _ANY_OF.get(capability)


def is_owned(capability: Capability) -> bool:
    """Whether it is a capability over one's own things only."""
    return capability.value.endswith(".own")


def may_create_app(*, platform_admin: bool, any_user: bool) -> bool:
    """Whether a logged-in user may create an app: platform admins, or everybody when `any_user` (`api.md` 2).

    `any_user` is the setting `app_creation: any_user`.
    """
    return any_user or allows(None, Capability.APP_CREATE, platform_admin=platform_admin)

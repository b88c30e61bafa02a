"""The capability table against an independent copy (`api.md` 2): every role with every capability."""

from __future__ import annotations

import itertools

import pytest

from conman.domain.roles import (
    LEAST_ROLE,
    Capability,
    Platform,
    Role,
    allows,
    least_role,
    may_create_app,
    owned,
)

EXPECTED = {
    "user": """
        app.read member.read file.read changeset.read diff.read comment.read queue.read release.read
        environment.read deployment.read job.read temp_env.read profile.read event.read
        workspace.create.own workspace.read.own workspace.edit.own workspace.sync.own workspace.reset.own
        workspace.checkpoint.own workspace.delete.own
        changeset.create.own changeset.edit.own changeset.submit.own changeset.resubmit.own
        changeset.overrides.own changeset.queue.own changeset.withdraw.own changeset.to_draft.own
        changeset.request_review.own changeset.revalidate.own gate.retry.own gate.cancel.own
        comment.create comment.edit.own comment.resolve assistant.analyze assistant.chat
        temp_env.create.own temp_env.extend.own temp_env.undo.own temp_env.recreate.own temp_env.delete.own
        temp_env.open deployment.plan hold.read
    """,
    "reviewer": "changeset.review.others deployment.approve",
    "config_manager": """
        changeset.queue.any queue.reorder changeset.to_draft.any changeset.withdraw.any gate.retry.any
        changeset.revalidate.any release.manage deployment.deploy deployment.promote deployment.roll_back
        deployment.cancel deployment.revalidate environment.clear_release hold.set environment.drift_check
        environment.drift_fix job.cancel.any temp_env.create.any temp_env.extend.any temp_env.undo.any
        temp_env.recreate.any temp_env.delete.any
    """,
    "app_admin": """
        member.manage invite.manage settings.manage environment.manage profile.manage secret.reveal
        secret.rotate audit.read workspace.read.any workspace.edit.any workspace.sync.any workspace.reset.any
        workspace.checkpoint.any workspace.delete.any changeset.submit.any changeset.resubmit.any app.archive
    """,
    "platform_admin": "platform.app_create platform.user_manage platform.audit_read",
}
LEAST = {name: least for least, names in EXPECTED.items() for name in names.split()}
ORDER = ["user", "reviewer", "config_manager", "app_admin"]


def test_the_table_covers_every_capability_and_no_other():
    assert set(LEAST_ROLE) == set(Capability)
    assert {capability.value for capability in Capability} == set(LEAST)


@pytest.mark.parametrize("capability", Capability, ids=str)
def test_the_least_role_is_the_one_of_the_contract(capability: Capability):
    assert least_role(capability).value == LEAST[capability.value]


@pytest.mark.parametrize(("role", "capability"), list(itertools.product([None, *Role], Capability)), ids=str)
def test_a_role_has_what_the_roles_before_it_have_and_nothing_above(role: Role | None, capability: Capability):
    least = LEAST[capability.value]
    in_app = least != "platform_admin" and role is not None and ORDER.index(role.value) >= ORDER.index(least)
    assert allows(role, capability) is in_app
    assert allows(role, capability, platform_admin=True) is (in_app or least == "platform_admin")


def test_roles_are_ordered_by_power_not_by_alphabet():
    assert sorted(reversed(Role)) == [Role.USER, Role.REVIEWER, Role.CONFIG_MANAGER, Role.APP_ADMIN]
    assert max(Role) is Role.APP_ADMIN
    for low, high in itertools.combinations([Role(name) for name in ORDER], 2):
        assert low < high and low <= high and high > low and high >= low
    assert not Role.USER < Role.USER and Role.USER <= Role.USER and Role.USER >= Role.USER


def test_a_role_is_never_ordered_against_plain_text():
    for compare in (Role.USER.__lt__, Role.USER.__le__, Role.USER.__gt__, Role.USER.__ge__):
        with pytest.raises(TypeError, match="make it a Role first"):
            compare("app_admin")


def test_a_role_equals_its_name_so_that_records_can_hold_the_name():
    assert Role("config_manager") is Role.CONFIG_MANAGER
    assert Role.CONFIG_MANAGER == "config_manager"


@pytest.mark.parametrize("capability", [c for c in Capability if c.endswith(".own")], ids=str)
def test_what_others_made_needs_the_any_capability_or_is_refused(capability: Capability):
    assert owned(capability, is_own=True) is capability
    other = owned(capability, is_own=False)
    nobody = {
        Capability.WORKSPACE_CREATE_OWN,
        Capability.CHANGESET_CREATE_OWN,
        Capability.CHANGESET_EDIT_OWN,
        Capability.CHANGESET_OVERRIDES_OWN,
        Capability.CHANGESET_REQUEST_REVIEW_OWN,
        Capability.COMMENT_EDIT_OWN,
    }
    if capability in nobody:
        assert other is None
    else:
        assert other is not None and other.endswith(".any")
        assert least_role(other) in (Role.CONFIG_MANAGER, Role.APP_ADMIN)


def test_every_any_capability_is_reached_from_an_own_one():
    reached = {owned(capability, is_own=False) for capability in Capability if capability.endswith(".own")}
    assert reached - {None} == {capability for capability in Capability if capability.endswith(".any")}


def test_apps_are_created_by_platform_admins_or_by_all_when_the_setting_says_so():
    assert least_role(Capability.APP_CREATE) is Platform.ADMIN
    assert may_create_app(platform_admin=True, any_user=False)
    assert may_create_app(platform_admin=False, any_user=True)
    assert not may_create_app(platform_admin=False, any_user=False)

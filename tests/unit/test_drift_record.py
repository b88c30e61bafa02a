"""What one look at an environment changes, when it is healed, and what a report may hold (`spec.md` 12)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from rule_samples import uid

from conman.domain.audit import make_event
from conman.domain.decision import Event
from conman.domain.deployment import Deployment, DeploymentState, Kind
from conman.domain.drift import MOST_ITEMS, DriftItem, same_report, told
from conman.domain.drift_record import DriftRecord, DriftState, Look, Looked, look
from conman.domain.heal import Healing, HealLimits, healing
from conman.domain.ids import derived_uuid7
from conman.domain.target import WITHHELD
from conman.domain.times import milliseconds

ENVIRONMENT = uid("qa")
AT = "2026-03-01T10:00:00.000Z"
LATER = "2026-03-01T11:00:00.000Z"
LEVEL = DriftItem(kind="env_var", key="LEVEL", expected="info", observed="debug")
MODE = DriftItem(kind="env_var", key="MODE", expected="fast", observed="slow")
EDIT = DriftItem(kind="emergency_edit", expected=3, observed=4)
FOREIGN = DriftItem(kind="migration", key="9.js", observed="applied")
CLEAN = DriftRecord(version=1, state=DriftState.CLEAN, last_clean_at=AT, checked_at=AT, deployment_id=uid("one"))
DRIFTED = CLEAN.model_copy(update={"state": DriftState.DRIFTED, "report": [LEVEL], "first_seen_at": AT})


def secret(digest: str) -> DriftItem:
    return DriftItem(kind="secret", key="PIN", expected=digest, observed=digest[::-1])


def seen(*report: DriftItem, by: str = "one", at: str = LATER, **fields: Any) -> Look:
    owned = {name: fields.pop(name) for name in ("kind", "overwrites", "cleared_revision_id", "drift_report") if name in fields}
    deployment = Deployment(
        app_id=uid("app"),
        environment_id=ENVIRONMENT,
        release_id=uid("release"),
        state=DeploymentState.SUCCEEDED,
        requested_at=AT,
        job_id=uid("job"),
        fence=1,
        **owned,
    )
    return Look(ENVIRONMENT, at, uid(by), deployment, 3, list(report), **fields)


def checked(found: Looked) -> list[tuple[str, Event]]:
    """The events by action, each as the audit takes it."""
    for event in found.events:
        make_event(
            event_id=derived_uuid7(milliseconds(LATER), "event"),
            occurred_at=LATER,
            actor_user_id=None,
            app_id=uid("app"),
            entity_type=event.entity_type,
            entity_id=event.entity_id,
            action=event.action,
            before=event.before,
            after=event.after,
        )
    return [(event.action, event) for event in found.events]


def test_a_new_report_is_audited_and_told_with_when_it_was_first_seen() -> None:
    found = look(CLEAN, seen(LEVEL))

    assert found.tells
    assert [action for action, _ in checked(found)] == ["drift_detected"]
    assert (found.record.state, found.record.first_seen_at, found.record.last_clean_at) == (DriftState.DRIFTED, LATER, AT)


@pytest.mark.parametrize(("before", "now"), [([LEVEL], [LEVEL]), ([secret("ab" * 8)], [secret("cd" * 8)])], ids=["var", "secret"])
def test_the_same_report_is_told_once_whatever_the_digests_are(before: list[DriftItem], now: list[DriftItem]) -> None:
    known = DRIFTED.model_copy(update={"report": before})

    found = look(known, seen(*now))

    assert (found.events, found.tells) == ((), False)
    assert (found.record.report, found.record.first_seen_at, found.record.checked_at) == (before, AT, LATER)


def test_a_report_that_has_changed_is_audited_with_the_one_before_it() -> None:
    ((action, event),) = checked(look(DRIFTED, seen(LEVEL, MODE)))

    assert action == "drift_detected"
    assert event.before == {"report": [LEVEL.model_dump(mode="json")]}


def test_a_drift_that_a_blocked_deployment_tells_of_is_not_told_twice() -> None:
    found = look(CLEAN, seen(LEVEL, is_told=True))

    assert (found.is_news, found.tells, len(found.events)) == (True, False, 1)


@pytest.mark.parametrize(
    ("now", "before", "cause"),
    [
        (seen(), [LEVEL], "mended"),
        (seen(by="two"), [LEVEL], "overwritten"),
        (seen(by="two", overwrites=True), [LEVEL], "overwritten"),
        (seen(by="two", kind=Kind.ROLLBACK), [LEVEL], "overwritten"),
        (seen(by="two", kind=Kind.HEAL, drift_report=[LEVEL]), [LEVEL], "healed"),
        (replace(seen(), cleared_revision_id=uid("edit")), [EDIT], "revalidated"),
        (seen(by="two", cleared_revision_id=uid("edit")), [EDIT], "revalidated"),
    ],
    ids=["mended", "deployed over", "overwritten", "rolled back", "healed", "revalidated", "deployed after a revalidation"],
)
def test_what_ended_a_drift_follows_from_what_is_in_place(now: Look, before: list[DriftItem], cause: str) -> None:
    found = look(DRIFTED.model_copy(update={"report": before}), now)

    action, event = checked(found)[0]
    assert (action, event.after) == ("drift_cleared", {"cause": cause, "deployment_id": now.deployment_id})
    assert (found.record.state, found.record.report, found.record.last_clean_at) == (DriftState.CLEAN, [], LATER)


def test_a_target_that_can_t_be_asked_leaves_what_was_seen_and_says_that_nothing_is_known_now() -> None:
    found = look(DRIFTED, replace(seen(), problem="The target did not answer."))

    assert (found.record.state, found.record.report, found.events) == (DriftState.UNKNOWN, [LEVEL], ())
    assert look(found.record, seen(LEVEL)).events == ()


def test_the_first_look_after_a_healing_says_once_whether_it_holds() -> None:
    healed = look(DRIFTED, seen(by="two", kind=Kind.HEAL, drift_report=[LEVEL]))
    undone = look(DRIFTED, seen(LEVEL, by="two", kind=Kind.HEAL, drift_report=[LEVEL]))
    again = look(healed.record, seen(LEVEL, by="two", kind=Kind.HEAL, drift_report=[LEVEL]))

    assert [(action, (event.after or {}).get("holds")) for action, event in checked(healed)][-1] == ("healed", True)
    assert [(action, (event.after or {}).get("holds")) for action, event in checked(undone)] == [("healed", False)]
    assert [action for action, _ in checked(again)] == ["drift_detected"]


def test_what_a_healing_does_not_touch_does_not_speak_against_it() -> None:
    found = look(DRIFTED, seen(FOREIGN, EDIT, by="two", kind=Kind.HEAL, drift_report=[LEVEL, FOREIGN]))

    assert [(event.after or {})["holds"] for action, event in checked(found) if action == "healed"] == [True]


@pytest.mark.parametrize(
    ("now", "stopped"),
    [
        (seen(), None),
        (seen(LEVEL), AT),
        (seen(LEVEL, by="two"), None),
        (seen(LEVEL, by="two", kind=Kind.HEAL), AT),
    ],
    ids=["clean", "still drifted", "a person deployed", "another healing"],
)
def test_healing_that_has_stopped_begins_again_when_a_person_deploys_or_it_is_clean(now: Look, stopped: str | None) -> None:
    assert look(DRIFTED.model_copy(update={"healing_stopped_at": AT}), now).record.healing_stopped_at == stopped


LIMITS = HealLimits(most=3, window=timedelta(hours=6), pause=timedelta(minutes=10))


@pytest.mark.parametrize(
    ("policy", "update", "healed_at", "wanted"),
    [
        ("heal", {}, [], Healing.HEAL),
        ("block", {}, [], Healing.NOTHING),
        ("heal", {"report": [EDIT]}, [], Healing.NOTHING),
        ("heal", {"report": [FOREIGN]}, [], Healing.NOTHING),
        ("heal", {"report": [EDIT, FOREIGN, LEVEL]}, [], Healing.HEAL),
        ("heal", {"state": DriftState.UNKNOWN}, [], Healing.NOTHING),
        ("heal", {"healing_stopped_at": AT}, [], Healing.NOTHING),
        ("heal", {}, ["2026-03-01T10:50:00.001Z"], Healing.WAIT),
        ("heal", {}, ["2026-03-01T10:50:00.000Z"], Healing.HEAL),
        ("heal", {}, ["2026-03-01T10:30:00.000Z", "2026-03-01T10:00:00.000Z"], Healing.HEAL),
        ("heal", {}, ["2026-03-01T10:30:00.000Z", "2026-03-01T10:00:00.000Z", "2026-03-01T05:00:00.001Z"], Healing.STOP),
        ("heal", {}, ["2026-03-01T10:30:00.000Z", "2026-03-01T10:00:00.000Z", "2026-03-01T05:00:00.000Z"], Healing.HEAL),
        ("heal", {}, ["2026-03-01T10:59:00.000Z", "2026-03-01T10:00:00.000Z", "2026-03-01T09:00:00.000Z"], Healing.STOP),
    ],
)
def test_healing_keeps_to_its_policy_and_limits(
    policy: str, update: dict[str, Any], healed_at: list[str], wanted: Healing
) -> None:
    assert healing(policy, DRIFTED.model_copy(update=update), healed_at, LATER, LIMITS) is wanted


# -- Reports


def test_no_report_holds_the_value_of_a_secret_and_it_says_where_one_was_left_out() -> None:
    found = told(
        [
            DriftItem(kind="env_var", key="URL", expected="https://a", observed="https://u:s3cr3t-s3cr3t@a"),
            DriftItem(kind="database", key="name", expected={"a": ["s3cr3t-s3cr3t"]}, observed=1),
            DriftItem(kind="env_var", key="s3cr3t-s3cr3t", observed="x"),
            DriftItem(kind="env_var", key="MODE", expected="fast", observed=WITHHELD),
            LEVEL,
            secret("ab" * 8),
        ],
        ["s3cr3t-s3cr3t"],
    )

    assert "s3cr3t-s3cr3t" not in str(found)
    assert [item.omitted for item in found] == [True, True, False, True, False, False]
    assert found[4:] == [LEVEL, secret("ab" * 8)]


def test_a_report_has_an_end() -> None:
    one_too_long = [DriftItem(kind="env_var", key="A", expected="x" * 200_000, observed="y"), LEVEL]
    many = [DriftItem(kind="env_var", key=f"A{number}", observed="y") for number in range(MOST_ITEMS + 1)]

    assert [(item.key, item.omitted) for item in told(one_too_long, [])] == [("A", True), ("LEVEL", False)]
    assert len(told(many, [])) == MOST_ITEMS


def test_reports_are_the_same_in_any_order_and_differ_by_what_is_there_of_a_secret() -> None:
    gone = DriftItem(kind="secret", key="PIN", expected="ab" * 8)

    assert same_report([LEVEL, MODE, EDIT], [EDIT, MODE, LEVEL])
    assert not same_report([secret("ab" * 8)], [gone])
    assert not same_report([LEVEL], [LEVEL.model_copy(update={"observed": "trace"})])

"""The risks that rules find in a changeset, each with its file and line (`spec.md` 8)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conman.domain.key_merge_tree import MAX_BYTES
from conman.domain.risk_rules import ADVICE, OVERRIDES, advice, assess, summary
from conman.domain.risk_rules_facts import CanonicalEnvironment, Facts, OverrideFact, Risk, Rule, Severity
from conman.domain.risk_rules_patch import added_lines, hunks
from conman.domain.risk_rules_references import MOST_PLACES, may_name, telling_words
from tests.unit.risk_samples import Files, changed, facts

PRODUCTION = CanonicalEnvironment("Production", ("migrations/shop",))


def told(risks: tuple[Risk, ...]) -> list[tuple[str, str, str, int | None]]:
    return [(risk.rule.value, risk.severity.value, risk.file_path, risk.line) for risk in risks]


def of(before: str, after: str, path: str = "a.yaml") -> list[tuple[str, str, int | None]]:
    """Rule, severity and line of what one changed file has."""
    return [(rule, severity, line) for rule, severity, _, line in told(assess(facts({path: before}, {path: after})))]


def test_a_harmless_change_has_no_risk() -> None:
    risks = assess(facts({"a.yaml": "title: Shop\nretries: 3\n"}, {"a.yaml": "title: Store\nretries: 4\n"}))
    assert risks == ()
    assert summary(1, risks) == "1 file changed; the rules found no risk."
    assert advice(risks) == []


# -- Numbers and types


@pytest.mark.parametrize(
    ("before", "after", "severity"),
    [
        ("10", "99", None),
        ("10", "100", "medium"),
        ("100", "10", "medium"),
        ("10", "1000", "high"),
        ("-10", "-100", "medium"),
        ("0.5", "0.05", "medium"),
        ("0", "1", None),
        ("1", "0", None),
        ("0", "10", "medium"),
        ("500", "0", "high"),
        ("30s", "299s", None),
        ("30s", "5min", "medium"),
        ("30s", "300000ms", "medium"),
        ("1GB", "1000MB", None),
        ("1Gi", "16Gi", "medium"),
        ("500m", "5", None),
        ("1" * 500, "2", None),
    ],
)
def test_a_number_that_changes_tenfold_has_jumped(before: str, after: str, severity: str | None) -> None:
    found = of(f"limit: {before}\n", f"limit: {after}\n")
    assert [each for each in found if each[0] == "jump"] == ([("jump", severity, 1)] if severity else [])


@pytest.mark.parametrize("key", ["port", "userId", "schema_version", "status-code"])
def test_numbers_that_are_no_amounts_do_not_jump(key: str) -> None:
    assert of(f"{key}: 80\n", f"{key}: 8080\n") == []


@pytest.mark.parametrize(
    ("before", "after", "severity"),
    [
        ("3", '"3"', "medium"),
        ("true", '"yes"', "medium"),
        ("[a]", "a", "medium"),
        ("{a: 1}", "[a]", "medium"),
        ("3", "null", "low"),
        ("null", "3", None),
        ("1", "1.5", None),
        ("a", "b", None),
    ],
)
def test_a_value_of_another_type_is_told(before: str, after: str, severity: str | None) -> None:
    found = of(f"x: 1\nkey: {before}\n", f"x: 1\nkey: {after}\n")
    assert found == ([("type", severity, 2)] if severity else [])


# -- Secrets, markers, files that can't be read


@pytest.mark.parametrize(
    ("path", "text", "line"),
    [
        ("a.json", '{\n  "db": {\n    "password": "Tr0ub4dor&3!"\n  }\n}\n', 3),
        ("a.toml", 'title = "x"\napi_key = "Tr0ub4dor&3!"\n', 2),
        ("a.yaml", "env:\n  - name: DB_PASSWORD\n    value: Tr0ub4dor&3!\n", 3),
        ("notes.txt", "use\nAKIAIOSFODNN7EXAMPLE\n", 2),
        ("broken.yaml", "a: [\ntoken: Tr0ub4dor&3!\n", 2),
    ],
)
def test_a_pasted_secret_is_told_at_its_line_without_its_value(path: str, text: str, line: int) -> None:
    risks = [risk for risk in assess(facts({}, {path: text})) if risk.rule is Rule.SECRET]
    assert told(tuple(risks)) == [("secret", "high", path, line)]
    assert "Tr0ub4dor" not in risks[0].message
    assert "AKIA" not in risks[0].message


def test_a_secret_that_was_there_before_is_not_told_again() -> None:
    assert of("password: Tr0ub4dor&3!\na: 1\n", "password: Tr0ub4dor&3!\na: 2\n") == []


def test_the_markers_of_a_merge_are_told_each_at_its_line() -> None:
    found = of("a: 1\n", "<<<<<<< ours\na: 1\n=======\na: 2\n>>>>>>> theirs\n")
    assert found == [("merge_marker", "high", 1), ("merge_marker", "high", 5)]


@pytest.mark.parametrize(
    ("path", "text", "line"),
    [("a.json", '{"a": 1,\n}\n', 2), ("a.yaml", "a: 1\nb: 2\na: 3\n", 3), ("a.toml", "a = 1\na = 2\n", 2)],
)
def test_a_file_that_can_not_be_read_or_has_a_key_twice_is_told(path: str, text: str, line: int) -> None:
    assert told(assess(facts({}, {path: text}))) == [("unreadable", "high", path, line)]


@pytest.mark.parametrize(
    "text", ["a: " + "[" * 80 + "]" * 80, "a: [" + "1," * 100_001 + "]", "a: " + "x" * MAX_BYTES], ids=["deep", "many", "large"]
)
def test_a_sound_file_that_is_too_much_to_read_is_only_worth_a_look(text: str) -> None:
    assert told(assess(facts({}, {"a.yaml": text}))) == [("unreadable", "low", "a.yaml", 1)]


# -- What is gone and still named

PAGE = "name: checkout\n"


@pytest.mark.parametrize(
    ("base", "head", "page", "severity"),
    [
        ("providers:\n  - id: stripe\n", "providers: []\n", "provider: stripe", "high"),
        ("providers:\n  - id: stripe\n", "providers: []\n", "providers: [adyen, stripe]", "high"),
        ("providers:\n  - id: stripe\n", "providers: []\n", "paymentProviderId: stripe", "high"),
        ("providers:\n  - id: stripe\n", "providers: []\n", "source: stripe", "high"),
        ("providers:\n  - id: stripe\n", "providers: []\n", 'use: "${providers.stripe}"', "high"),
        ("providers:\n  - id: stripe\n", "providers: []\n", 'title: "Pay with {{ stripe }}"', "high"),
        ("providers:\n  - id: stripe\n", "providers: []\n", "which: providers.stripe", "high"),
        ("providers:\n  - id: stripe\n", "providers: []\n", 'a: "settings.yaml#/providers/stripe"', "high"),
        ("providers:\n  - id: eu-west-2\n", "providers: []\n", "zone: eu-west-2", "medium"),
        ("providers:\n  - id: stripe\n", "providers: []\n", "title: stripe", None),
        ("providers:\n  stripe: {url: x}\n", "providers: {}\n", "provider: stripe", "high"),
        ("providers: [stripe, adyen]\n", "providers: [adyen]\n", "provider: stripe", "high"),
        ("fields:\n  cardNumber: text\n", "fields: {}\n", "bind: cardNumber", "high"),
        ("fields:\n  cardNumber: text\n", "fields: {}\n", "title: cardNumber", None),
        ("id: stripe\n", "id: stripe-2\n", "source: stripe", "high"),
        ("providers:\n  - id: stripe\n", "providers:\n  - {id: stripe, url: y}\n", "provider: stripe", None),
    ],
)
def test_what_is_gone_and_still_named_elsewhere_is_told_where_it_is_named(
    base: str, head: str, page: str, severity: str | None
) -> None:
    other = {"pages/checkout.yaml": PAGE + page + "\n"}
    risks = assess(facts({"settings.yaml": base, **other}, {"settings.yaml": head, **other}))
    found = [each for each in told(risks) if each[0] == "reference"]
    assert found == ([("reference", severity, "pages/checkout.yaml", 2)] if severity else [])
    if severity:
        assert "settings.yaml (line" in risks[0].message


def test_what_another_file_defines_now_is_not_gone() -> None:
    page = {"pages/checkout.yaml": "provider: stripe\n"}
    base: Files = {"old.yaml": "providers:\n  - id: stripe\n", "new.yaml": "providers: []\n", **page}
    head: Files = {"old.yaml": "providers: []\n", "new.yaml": "providers:\n  - id: stripe\n", **page}
    assert assess(facts(base, head)) == ()


@pytest.mark.parametrize(
    "page",
    [
        "schema: providers/Stripe.json",
        "schema: /providers/Stripe.json#/x",
        "schema: ../providers/Stripe.json",
        "schema: ../providers/Stripe",
        "provider: Stripe",
        "providers: [Stripe]",
    ],
)
def test_a_file_that_is_gone_and_still_named_is_told(page: str) -> None:
    other = {"pages/checkout.yaml": PAGE + page + "\n"}
    risks = assess(facts({"providers/Stripe.json": '{"url": "x"}', **other}, other))
    assert told(risks) == [("reference", "high", "pages/checkout.yaml", 2)]
    assert "providers/Stripe.json" in risks[0].message


def test_a_file_that_moved_and_is_still_named_where_it_was_is_told_with_its_new_place() -> None:
    other = {"pages/a.yaml": "schema: providers/a.json\n"}
    base: Files = {"providers/a.json": '{"x": 1}', **other}
    found = facts(base, {"payment/a.json": '{"x": 1}', **other}, moved={"payment/a.json": "providers/a.json"})
    (risk,) = assess(found)
    assert (risk.file_path, risk.line) == ("pages/a.yaml", 1)
    assert "is now payment/a.json" in risk.message


def test_of_many_places_that_name_one_thing_the_first_are_told() -> None:
    others = {f"pages/{number:02}.yaml": "provider: stripe\n" for number in range(MOST_PLACES + 3)}
    risks = assess(facts({"p.yaml": "providers:\n  - id: stripe\n", **others}, {"p.yaml": "providers: []\n", **others}))
    assert [risk.file_path for risk in risks] == sorted(others)[:MOST_PLACES]


def test_other_files_are_only_needed_where_something_is_gone() -> None:
    assert telling_words(facts({"a.yaml": "a: 1\n"}, {"a.yaml": "a: 2\nb: 3\n"})) == frozenset()
    telling = telling_words(facts({"a.yaml": "a: 1\neu-central: 2\n"}, {"a.yaml": "a: 1\n"}))
    assert telling == {b"central"}
    assert may_name(b"zone: eu-central", telling)
    assert not may_name(b"decentralised: true", telling)
    assert telling_words(facts({"x/a.yaml": "b: 1\n"}, {})) == {b"a"}


# -- The canonical environment


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("config/production.yaml", 2),
        ("production/app.yaml", 2),
        ("settings.prod.yaml", 2),
        ("migrations/shop/001.yaml", 2),
        ("config/reproduction.yaml", None),
        ("migrations/shops/001.yaml", None),
    ],
)
def test_a_file_of_the_canonical_environment_is_told_at_its_first_new_line(path: str, line: int | None) -> None:
    risks = assess(facts({path: "a: 1\nb: old\n"}, {path: "a: 1\nb: new\n"}, canonical=PRODUCTION))
    assert told(risks) == ([("canonical", "medium", path, line)] if line else [])


def test_a_setting_of_the_canonical_environment_is_told_at_its_line() -> None:
    base, head = "qa:\n  a: old\nproduction:\n  a: old\n", "qa:\n  a: old\nproduction:\n  a: new\n"
    risks = assess(facts({"all.yaml": base}, {"all.yaml": head}, canonical=PRODUCTION))
    assert told(risks) == [("canonical", "medium", "all.yaml", 4)]


def test_an_override_of_the_canonical_environment_is_told_by_its_names() -> None:
    overrides = (OverrideFact("QA", False, ("URL",)), OverrideFact("Production", True, ("TOKEN", "URL")))
    (risk,) = assess(facts({}, {}, overrides=overrides))
    assert (risk.severity, risk.file_path, risk.line) == (Severity.HIGH, OVERRIDES, None)
    assert "`TOKEN`, `URL`" in risk.message


# -- The whole


def test_risks_are_ordered_gravest_first_whatever_the_order_of_the_files() -> None:
    base = {"b.yaml": "x: 1\ny: 10\n", "a.yaml": "x: 1\n"}
    head = {"b.yaml": "x: one\ny: 5000\n", "a.yaml": "x: one\n"}
    found = facts(base, head)
    risks = assess(found)
    assert told(risks) == [
        ("jump", "high", "b.yaml", 2),
        ("type", "medium", "a.yaml", 1),
        ("type", "medium", "b.yaml", 1),
    ]
    assert assess(Facts(found.files[::-1])) == risks
    assert summary(2, risks) == "2 files changed; the rules found 3 risks (1 high, 2 medium)."
    assert advice(risks) == [ADVICE[Rule.JUMP], ADVICE[Rule.TYPE]]


def test_every_rule_has_its_advice() -> None:
    assert set(ADVICE) == set(Rule)


@settings(deadline=None)
@given(
    st.sampled_from(["a.json", "a.yaml", "a.toml", "a.txt"]),
    st.none() | st.binary(max_size=200) | st.text(alphabet='{}[]":,-ab1 \n<>=#.&*|', max_size=200).map(str.encode),
    st.none() | st.binary(max_size=200) | st.text(alphabet='{}[]":,-ab1 \n<>=#.&*|', max_size=200).map(str.encode),
)
def test_any_bytes_are_assessed_within_the_lines_of_the_head(path: str, old: bytes | None, new: bytes | None) -> None:
    found = Facts((changed(path, old, new),), {"b.yaml": b"ref: a\n", "c.json": old or b""}, canonical=PRODUCTION)
    risks = assess(found)
    assert assess(found) == risks
    for risk in risks:
        if risk.file_path == path and risk.line is not None:
            assert 1 <= risk.line <= (new or b"").count(b"\n") + 1


# -- Patches

PATCH = """diff --git a/a b/a
--- a/a
+++ b/a
@@ -1,3 +1,3 @@
 one
--- two
+++ two
 three
@@ -10 +10,2 @@ in here
-ten
+ten!
+eleven
\\ No newline at end of file
"""


def test_lines_of_a_patch_have_their_numbers_in_both_versions() -> None:
    found = [(line.sign, line.old, line.new, line.text) for _, lines in hunks(PATCH) for line in lines]
    assert found == [
        (" ", 1, 1, "one"),
        ("-", 2, None, "-- two"),
        ("+", None, 2, "++ two"),
        (" ", 3, 3, "three"),
        ("-", 10, None, "ten"),
        ("+", None, 10, "ten!"),
        ("+", None, 11, "eleven"),
    ]
    assert added_lines(PATCH) == {2, 10, 11}


@given(st.text(alphabet="@-+ ,0123\n", max_size=200))
def test_any_text_is_read_as_a_patch(text: str) -> None:
    assert all(number >= 0 for number in added_lines(text))

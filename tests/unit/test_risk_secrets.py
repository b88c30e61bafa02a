"""What looks like a secret, and that none of it is left in what is sent (`spec.md` 8)."""

from __future__ import annotations

import base64
import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conman.domain.risk_rules_secrets import REMOVED, find_secrets, is_secret_name, scrub

TOKENS = [
    ("AKIAIOSFODNN7EXAMPLE", "an AWS access key id"),
    ("ghp_" + "aB3" * 12, "a GitHub token"),
    ("github_pat_" + "aB3_" * 20, "a GitHub token"),
    ("glpat-" + "aB3-" * 5, "a GitLab token"),
    ("xoxb-123456789012-abcdefABCDEF", "a Slack token"),
    ("sk_live_" + "aB3" * 8, "a Stripe key"),
    ("AIza" + "aB3_-" * 7, "a Google API key"),
    ("SG." + "aB3_" * 5 + "." + "aB3-" * 10, "a SendGrid key"),
    ("npm_" + "aB3" * 12, "a package registry token"),
    ("hvs." + "aB3" * 10, "a HashiCorp token"),
    ("sk-" + "aB3" * 10, "a model provider's key"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl", "a JSON Web Token"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nabc\n-----END RSA PRIVATE KEY-----", "a private key"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk", "a private key"),
]


@pytest.mark.parametrize(("token", "kind"), TOKENS, ids=lambda value: value[:12])
@pytest.mark.parametrize("around", ["{}", "value = {}", '{{"any": "{}"}}', "- {}\n- next", "https://example.com/?q={}"])
def test_a_token_of_a_known_shape_is_told_and_removed_wherever_it_stands(token: str, kind: str, around: str) -> None:
    text = around.format(token)
    assert kind in [secret.kind for secret in find_secrets(text) if secret.likely]
    left = scrub(text)
    assert token not in left
    assert REMOVED in left
    assert left.count("\n") == text.count("\n"), "lines keep their numbers"


@pytest.mark.parametrize(
    "text",
    [
        'password: "Tr0ub4dor&3!"',
        "DB_PASSWORD=Tr0ub4dor&3!",
        "--smtp-pass=Tr0ub4dor&3!",
        '{"clientSecret": "Tr0ub4dor&3!"}',
        "api_key = 'Tr0ub4dor&3!'",
        "url=x&token=Tr0ub4dor&3!",
        "mongodb://app:Tr0ub4dor&3!@db.example.com/shop",
        "redis://:Tr0ub4dor&3!@cache:6379",
    ],
)
def test_a_value_under_the_name_of_a_secret_is_told_and_removed(text: str) -> None:
    assert [secret.likely for secret in find_secrets(text)] == [True]
    assert "Tr0ub4dor" not in scrub(text)


@pytest.mark.parametrize(
    "text",
    [
        "password: correct horse battery staple",
        "password: changeme",
        "token: bearer-token",
        "postgres://user:password@host/db",
        "etag: d41d8cd98f00b204e9800998ecf8427e",
    ],
)
def test_what_may_be_a_secret_is_removed_though_people_are_not_told(text: str) -> None:
    assert [secret.likely for secret in find_secrets(text)] == [False]
    assert REMOVED in scrub(text)


@pytest.mark.parametrize(
    "text",
    [
        "password: ${DB_PASSWORD}",
        "password: {{ .Values.password }}",
        "passwordPolicy: strong",
        "secretName: shop-tls",
        "tokenUrl: https://login.example.com/oauth/token",
        "token_ttl_seconds: 3600",
        "publicKey: none",
        "secret: true",
        "id: 3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "retryCount: 3",
        "path: entities/payment/providers/configuration/defaults.json",
    ],
)
def test_names_references_and_ids_are_no_secrets(text: str) -> None:
    assert find_secrets(text) == []
    assert scrub(text) == text


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("password", True),
        ("db.passwd", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("apiKey", True),
        ("signing-key", True),
        ("key", False),
        ("primaryKey", False),
        ("passwordHash", False),
        ("tokens_per_minute", False),
        ("publicApiKey", False),
        ("", False),
    ],
)
def test_the_last_words_of_a_name_say_whether_it_holds_a_secret(name: str, holds: bool) -> None:
    assert is_secret_name(name) is holds


@pytest.mark.parametrize(
    "piece",
    ["a", "a.", "a-", "a:", "x=y,", '"', "password: '", "://", "eyJ", "-----BEGIN PRIVATE KEY-----", "\\", 'token="', "aB3"],
)
def test_the_time_that_a_text_takes_grows_with_its_length(piece: str) -> None:
    """No pattern tries the same characters again and again: else this would take minutes."""
    text = piece * (200_000 // len(piece))
    assert scrub(text).count("\n") == 0


def test_a_random_text_of_any_length_is_removed() -> None:
    text = base64.b64encode(hashlib.shake_256(b"any").digest(9_000)).decode().rstrip("=")
    assert scrub(f"data {text}== end") == f"data {REMOVED} end"


def test_given_values_are_removed_line_by_line_the_longest_first() -> None:
    text = "first line\n+  second line of it\nsecond\n"
    assert scrub(text, ["second line of it\nlast", "second"]) == f"first line\n+  {REMOVED}\n{REMOVED}\n"


def test_scrubbing_twice_changes_nothing_more() -> None:
    once = scrub('password: "Tr0ub4dor&3!" AKIAIOSFODNN7EXAMPLE')
    assert scrub(once) == once


@given(st.text(max_size=400) | st.text(alphabet="\":=' \n{}password-token", max_size=400))
def test_any_text_is_scrubbed_with_its_lines_kept(text: str) -> None:
    found = find_secrets(text)
    assert all(0 <= secret.start < secret.end <= len(text) for secret in found)
    assert all(one.end <= other.start for one, other in pairwise(found))
    assert scrub(text).count("\n") == text.count("\n")

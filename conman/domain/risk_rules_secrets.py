"""What in a text looks like a secret: known tokens, values under the name of a secret, and what is too random for words.

One detector serves two ends. The rules (`conman.domain.risk_rules`) tell only of what is `likely`, so that people keep reading
them. What leaves for a model is stripped of everything found, likely or not: there a value too many costs nothing.

The shapes are the ones that the issuers document for their own tokens (AWS, GitHub, GitLab, Slack, Stripe, Google and others),
PEM (RFC 7468), JSON Web Tokens (RFC 7519) and passwords in URLs (RFC 3986, section 3.2.1).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from conman.domain.risk_rules_words import words, words_of

REMOVED = "[secret removed]"
"""Stands for a secret in what is sent."""

SHORTEST_LINE = 4
"""Of a secret with several lines, each line of at least so many characters is removed by itself too."""

_SHAPES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("a private key", r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)"),
        ("an AWS access key id", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
        ("a GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{22,255})"),
        ("a GitLab token", r"\bgl(?:pat|ptt|dt|rt|cbt|agent|oas|soat|ft|imt)-[A-Za-z0-9_\-.]{20,300}"),
        ("a Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,250}|\bxapp-\d-[A-Za-z0-9-]{10,250}"),
        ("a Slack webhook", r"\bhooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_-]{20,200}"),
        ("a Stripe key", r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,250}|\bwhsec_[A-Za-z0-9+/=]{16,100}"),
        ("a Google API key", r"\bAIza[A-Za-z0-9_-]{35}"),
        ("a Google OAuth secret", r"\bGOCSPX-[A-Za-z0-9_-]{28}"),
        ("a SendGrid key", r"\bSG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}"),
        ("a package registry token", r"\bnpm_[A-Za-z0-9]{36}|\bpypi-[A-Za-z0-9_-]{50,1000}"),
        ("a HashiCorp token", r"\bhv[sbr]\.[A-Za-z0-9_-]{24,300}|\b[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{60,70}"),
        ("a model provider's key", r"\bsk-[A-Za-z0-9_-]{20,300}"),
        ("a DigitalOcean token", r"\bdo[opr]_v1_[a-f0-9]{64}"),
        ("an age key", r"\bAGE-SECRET-KEY-1[A-Z0-9]{58}"),
        ("an Azure account key", r"(?i)(?<=accountkey=)[A-Za-z0-9+/=]{40,100}"),
        ("a JSON Web Token", r"\beyJ[A-Za-z0-9_-]{10,4000}\.eyJ[A-Za-z0-9_-]{10,8000}\.[A-Za-z0-9_-]{0,2000}"),
        ("a password in a URL", r"(?<=://)[^\s/:@\"'<>{}$]{0,100}:[^\s/@\"'<>{}$]{1,200}(?=@[A-Za-z0-9\[])"),
        ("a bearer token", r"(?i)\bbearer\s{1,3}[A-Za-z0-9_\-.~+/]{20,4000}=*"),
    )
)

# Possessive, and from a word's beginning only: each character is looked at once, whatever the text.
_KEY = re.compile(r"(?<![\w./-])([\w./-]++)[\"']?+[ \t]{0,8}+(?::=|=>|[:=])[ \t]{0,8}+")
_VALUE = re.compile(r"\"(?:[^\"\\\n]|\\.){0,8000}\"?|'[^'\n]{0,8000}'?|[^\s\"'\[{][^\n]{0,8000}")
_RANDOM = re.compile(r"(?<![A-Za-z0-9+/_=\-])[A-Za-z0-9+/_\-]{32,}+={0,2}")
_HEX = re.compile(r"[0-9a-fA-F]+")

_SECRET_WORDS = words(
    """
    password passwords passwd pwd passphrase secret secrets token tokens apikey credential credentials pat pass
    """
)
_KEY_KINDS = words(
    """
    api secret private access signing encryption auth master account shared storage license service
    """
)
_NAMES_NO_SECRET = words(
    """
    hash hashed checksum digest integrity sha sha1 sha256 sha512 etag fingerprint public cert
    """
)
_NOTHING = words(
    """
    true false null none yes no on off nil undefined changeme change-me example placeholder redacted hidden masked todo
    tbd secret password token test dummy default pass pwd
    """
)
_VARIABLE = re.compile(r"\$\w+|\$\{\w+\}|\{\{[^{}\n]{0,200}\}\}")
_NO_VALUE = frozenset(("", "true", "false", "null", "none", "~", "|", "|-", "|+", ">", ">-", ">+"))
_REFERENCE = re.compile(
    r"(?:\$|\{\{|<|%[({]|@@|!|(?:env|vault|secrets?|ref|file|kms|sops|ssm|op|arn|conjur):|process\.env|os\.environ)[\s\S]*", re.I
)
_BLANKED = re.compile(r"[*xX.\-]+")
_WORDS = re.compile(r"[a-z]{2,}(?:[-_. ][a-z]+\d{0,3})*")
_LONGEST_NAME = 200
_SHORTEST_LIKELY = 8
_LIKELY_BITS = 2.8
_RANDOM_BITS = 4.3


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a text has a secret: `text[start:end]`. `kind` says what it is; `likely`: people ought to be told."""

    start: int
    end: int
    kind: str
    likely: bool


def is_secret_name(name: str) -> bool:
    """Whether a key by this name holds a secret: `db_password` and `apiKey` do, `tokenUrl` and `secretName` only speak of one."""
    parts = words_of(name.rpartition("/")[2])
    if not parts or any(part in _NAMES_NO_SECRET for part in parts):
        return False
    if parts[-1] in _SECRET_WORDS:
        return True
    return len(parts) > 1 and parts[-1] in ("key", "keys") and parts[-2] in _KEY_KINDS


def is_likely_value(value: str) -> bool:
    """Whether a value under a secret's name is one, and no placeholder, reference or plain word."""
    text = value.strip()
    if (
        len(text) < _SHORTEST_LIKELY
        or text.lower() in _NOTHING
        or _REFERENCE.match(text)
        or set(text) <= {"*", "x", "X", ".", "-"}
    ):
        return False
    if _WORDS.fullmatch(text):
        return False
    kinds = sum(any(test(each) for each in text) for test in (str.islower, str.isupper, str.isdigit, _is_sign))
    return entropy(text) >= _LIKELY_BITS and kinds >= 2 and not ("/" in text and " " in text)


def find_secrets(text: str) -> list[Secret]:
    """Everything in a text that looks like a secret, by place; where two overlap, the more telling one."""
    found = [
        Secret(match.start(), match.end(), kind, likely=not _is_placeholder(match[0]))
        for kind, pattern in _SHAPES
        for match in pattern.finditer(text)
    ]
    found += _named(text)
    found += (Secret(*match.span(), "a random text", likely=False) for match in _RANDOM.finditer(text) if _is_random(match[0]))
    kept: list[Secret] = []
    for each in sorted(found, key=lambda each: (each.start, not each.likely, -each.end)):
        if not kept or each.start >= kept[-1].end:
            kept.append(each)
        elif each.likely and not kept[-1].likely:
            kept[-1] = Secret(kept[-1].start, max(each.end, kept[-1].end), each.kind, likely=True)
        elif each.end > kept[-1].end:
            kept[-1] = Secret(kept[-1].start, each.end, kept[-1].kind, kept[-1].likely)
    return kept


def scrub(text: str, values: Iterable[str] = ()) -> str:
    """The text without its secrets, and without these values, each line of them; the lines keep their numbers."""
    lines = {line.strip() for value in values for line in value.splitlines()}
    known = sorted((line for line in lines if len(line) >= SHORTEST_LINE), key=lambda line: (-len(line), line))
    if known:
        text = re.sub("|".join(map(re.escape, known)), REMOVED, text)
    parts: list[str] = []
    at = 0
    for each in find_secrets(text):
        parts += (text[at : each.start], REMOVED, "\n" * text.count("\n", each.start, each.end))
        at = each.end
    return "".join((*parts, text[at:]))


def entropy(text: str) -> float:
    """Shannon's entropy of the characters of a text, bits each."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values()) if text else 0.0


def _named(text: str) -> Iterator[Secret]:
    """Values under the name of a secret. One that is not quoted is taken to go on to the end of its line."""
    at = 0
    while (key := _KEY.search(text, at)) is not None:
        value = _VALUE.match(text, key.end()) if is_secret_name(key[1][-_LONGEST_NAME:]) else None
        at = key.end() if value is None else value.end()
        if value is None:
            continue
        quoted = value[0][0] in "\"'"
        start = value.start() + quoted
        if _VARIABLE.fullmatch(value[0].strip(" \t\r,;\"'")):
            continue
        inner = value[0][1:].removesuffix(value[0][0]) if quoted else value[0].rstrip(" \t\r,;}])")
        if inner.lower() not in _NO_VALUE and inner != REMOVED:
            first = inner if quoted else re.split(r"[,;\s]", inner, maxsplit=1)[0]
            yield Secret(start, start + len(inner), "a secret", is_likely_value(first))


def _is_random(text: str) -> bool:
    if _HEX.fullmatch(text):
        return True
    kinds = sum(any(test(each) for each in text) for test in (str.islower, str.isupper, str.isdigit))
    return kinds == 3 and entropy(text) >= _RANDOM_BITS


def _is_placeholder(text: str) -> bool:
    """Whether what has the shape of a token is hidden already, or names where the password goes: `user:password@host`."""
    lower = text.lower()
    return "xxxx" in lower or "****" in lower or REMOVED in text or lower.partition(":")[2] in _NOTHING


def _is_sign(character: str) -> bool:
    return not character.isalnum() and not character.isspace() and character not in "._-/"

"""Mails from templates: of each kind a subject, a text and a page; what a template misses is an error, never a gap."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from conman.domain.deployment import Kind
from conman.domain.jobs import ReasonCode
from conman.domain.mail import one_line
from conman.domain.notification import NoticeKind
from conman.domain.times import parse_time

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True, slots=True)
class Words:
    """What a template says. Names are cleaned (`one_line`) before they get here; `data` is the notice's own.

    `environment_name`, `release_tag` and `requester_name` belong to what a deployment's or an environment's notice tells of,
    `author_name` to what a changeset's does.
    """

    link: str
    preferences_link: str
    recipient_name: str | None
    actor_name: str | None
    app_name: str | None
    role: str | None
    expires_at: str | None
    data: dict[str, Any]
    environment_name: str | None = None
    release_tag: str | None = None
    requester_name: str | None = None
    author_name: str | None = None


@dataclass(frozen=True, slots=True)
class Rendered:
    """A mail's three texts. `page` is HTML in ASCII: other characters are written as references."""

    subject: str
    text: str
    page: str


@cache
def environment() -> Environment:
    """The templates; HTML is escaped."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["utc"] = _utc
    made.filters["undertaking"] = _undertaking
    made.filters["reason"] = _reason
    return made


_UNDERTAKINGS = {
    Kind.DEPLOY: "deployment to",
    Kind.PROMOTE: "promotion to",
    Kind.ROLLBACK: "rollback in",
    Kind.HEAL: "healing of",
}


def _undertaking(kind: str) -> str:
    """A kind of deployment as a noun, before the name of its environment."""
    return _UNDERTAKINGS[Kind(kind)]


_REASONS = {
    ReasonCode.TESTS_FAILED: "the suite found something wrong",
    ReasonCode.TIMEOUT: "it took too long",
    ReasonCode.RUNNER_ERROR: "the command could not be run",
    ReasonCode.GIT_ERROR: "the repository gave way",
    ReasonCode.INFRASTRUCTURE: "a machine or a server under it gave way",
    ReasonCode.BASELINE_FAILING: "the suite fails without the change, too",
}


def _reason(code: str | None) -> str:
    """A job's reason code in words; the code itself where it needs none."""
    known = ReasonCode(code) if code is not None else None
    return "no reason is known" if known is None else _REASONS.get(known, known.value)


def _utc(time: str) -> str:
    return parse_time(time).strftime("%Y-%m-%d %H:%M UTC")


def render(kind: NoticeKind, words: Words) -> Rendered:
    """The mail of this kind. Raises `jinja2.TemplateError` for a template that is missing or asks for what there is not."""
    jinja, context = environment(), asdict(words)
    subject, text, page = (jinja.get_template(f"{kind.value}.{ending}").render(context) for ending in ("subject", "txt", "html"))
    return Rendered(one_line(subject), text, page.encode("ascii", "xmlcharrefreplace").decode("ascii"))

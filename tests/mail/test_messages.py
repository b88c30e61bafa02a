"""What a mail says, and that no name in it can change what it is (`spec.md` 14)."""

from __future__ import annotations

import re
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError

from conman.config import Settings
from conman.domain.mail import one_line
from conman.domain.notification import Notice, NoticeKind, TokenRef
from conman.domain.tokens import TokenPurpose
from conman.mail import links
from conman.mail.message import BadAddressError, Envelope, Outgoing, compose, mailbox
from conman.mail.rendering import TEMPLATES, environment, render
from conman.services.addressees import RULES
from tests.mail import pictures
from tests.mail.samples import AT, BARE, TOKEN, WORDS

ENVELOPE = Envelope(
    mail_id="0199-mail",
    at=AT,
    sender="Conman <conman@conman.test>",
    recipient="bob@example.com",
    recipient_name="Bob",
    host="conman.test",
)
KINDS = pytest.mark.parametrize("kind", list(NoticeKind), ids=str)
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "Eve\r\nBcc: victim@example.com",
    "Eve\n\n<h1>free money</h1>",
    "=?utf-8?q?=0d=0aBcc:_victim@example.com=0d=0a?=",
    "Eve\x00\x1b[31m\u2028\u202eevil",
    "{{ 7 * 7 }}{% raw %}",
    "Visit https://evil.test/login now",
    'Łukasz 😀 O\'Neil & Sons, "the" <great>',
    "x" * 5000,
]


def parsed(mail: Outgoing) -> EmailMessage:
    made = message_from_bytes(mail.content, policy=policy.SMTP)
    assert isinstance(made, EmailMessage)
    assert made.defects == []
    return made


def bodies(mail: Outgoing) -> tuple[str, str]:
    """The text and the page, decoded."""
    text, page = parsed(mail).iter_parts()
    assert (text.get_content_type(), page.get_content_type()) == ("text/plain", "text/html")
    return text.get_content(), page.get_content()


class Page(HTMLParser):
    """The links and the elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value for name, value in attrs if name == "href" and value]


@KINDS
def test_every_kind_has_its_templates_and_a_rule_for_whom_it_is(kind: NoticeKind) -> None:
    assert [ending for ending in ("subject", "txt", "html") if not (TEMPLATES / f"{kind.value}.{ending}").is_file()] == []
    assert kind in RULES


def test_there_is_no_template_that_no_kind_uses() -> None:
    used = {f"{kind.value}.{ending}" for kind in NoticeKind for ending in ("subject", "txt", "html")}
    assert {path.name for path in TEMPLATES.iterdir() if not path.name.startswith("_")} == used


@KINDS
def test_text_and_page_both_hold_the_link_and_the_preferences(kind: NoticeKind) -> None:
    text, page = bodies(compose(ENVELOPE, render(kind, WORDS)))
    assert WORDS.link in text.splitlines()
    assert WORDS.preferences_link in text
    assert set(Page(page).links) == {WORDS.link, WORDS.preferences_link}


@KINDS
def test_a_mail_can_do_without_what_is_not_known(kind: NoticeKind) -> None:
    rendered = render(kind, BARE)
    assert rendered.subject
    assert "None" not in rendered.subject + rendered.text + rendered.page


@KINDS
def test_the_headers_say_who_what_and_which_mail_it_is(kind: NoticeKind) -> None:
    mail = parsed(compose(ENVELOPE, render(kind, WORDS)))
    assert mail["From"] == "Conman <conman@conman.test>"
    assert mail["To"] == "Bob <bob@example.com>"
    assert mail["Subject"]
    assert mail["Date"] == "Sat, 31 Jan 2026 09:30:00 +0000"
    assert mail["Message-ID"] == "<0199-mail@conman.test>"
    assert mail["Auto-Submitted"] == "auto-generated"


@KINDS
def test_a_repeat_is_the_same_byte_for_byte(kind: NoticeKind) -> None:
    first, second = (compose(ENVELOPE, render(kind, WORDS)).content for _ in range(2))
    assert first == second


@KINDS
@pytest.mark.parametrize("name", ["Bob", "Łukasz"])
def test_bodies_are_7bit_or_quoted_printable_in_lines_that_smtp_carries(kind: NoticeKind, name: str) -> None:
    mail = compose(ENVELOPE, render(kind, replace(WORDS, recipient_name=name, actor_name=name, app_name=name)))
    encodings = [part["Content-Transfer-Encoding"] for part in parsed(mail).iter_parts()]
    assert encodings[0] == ("7bit" if name.isascii() else "quoted-printable")
    assert encodings[1] == "7bit"
    assert mail.content.isascii()
    assert max(len(line) for line in mail.content.split(b"\r\n")) <= 998
    assert b"\n" not in mail.content.replace(b"\r\n", b"")


@KINDS
@pytest.mark.parametrize("name", ["Bob", "Łukasz"])
def test_who_reads_the_raw_mail_finds_the_token_whole(kind: NoticeKind, name: str) -> None:
    mail = compose(ENVELOPE, render(kind, replace(WORDS, recipient_name=name, actor_name=name)))
    found = re.findall(r"token=([A-Za-z0-9_-]{32,})", mail.content.decode())
    assert set(found) == {TOKEN}


FREE_TEXT = frozenset({"title", "titles", "warning", "message", "paths", "overrides", "fields", "environments", "profile_name"})
"""What people choose of a notice's data; the rest are codes, numbers, times and names that Conman makes."""


def _hostile(key: str, value: object, name: str) -> object:
    if key not in FREE_TEXT:
        return value
    return [name for _ in value] if isinstance(value, list) else name


@KINDS
@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_name_changes_neither_the_headers_nor_the_page(kind: NoticeKind, name: str) -> None:
    plain = compose(ENVELOPE, render(kind, WORDS))
    data = {key: _hostile(key, value, name) for key, value in WORDS.data.items()}
    # As they come to the templates from `services/sending.py`: the app's name is in a subject, too.
    hostile = compose(
        replace(ENVELOPE, recipient_name=name),
        render(
            kind,
            replace(
                WORDS,
                recipient_name=name,
                actor_name=name,
                app_name=name,
                data=data,
                environment_name=name,
                requester_name=name,
                author_name=name,
            ),
        ),
    )
    assert [header for header, _ in parsed(hostile).items()] == [header for header, _ in parsed(plain).items()]
    assert parsed(hostile)["To"].addresses[0].addr_spec == "bob@example.com"
    page = Page(bodies(hostile)[1])
    assert page.elements == Page(bodies(plain)[1]).elements
    assert page.attributes == Page(bodies(plain)[1]).attributes
    assert set(page.links) == {WORDS.link, WORDS.preferences_link}


HEADERS = [header for header, _ in parsed(compose(ENVELOPE, render(NoticeKind.CHANGESET_SUBMITTED, WORDS))).items()]
ENDS_THE_LINE = ("\r\n", "\n", "\r", "\0", "\u2028", "=?utf-8?q?=0d=0aBcc:_eve@example.com?=", "=?utf-8?b?DQo=?=")
PIECES = st.sampled_from([*ENDS_THE_LINE, "Bcc: eve@example.com", "Subject:", "=?", "?=", "<", ">", ",", '"', "@", " "])
ANY_TEXT = st.lists(st.one_of(st.text(max_size=30), PIECES), max_size=8).map("".join)


@settings(deadline=None, max_examples=80)
@given(title=ANY_TEXT, name=ANY_TEXT)
def test_no_text_at_all_adds_a_header_a_recipient_or_a_body(title: str, name: str) -> None:
    """As the mail program of whoever gets it reads it, and not only as it was put together."""
    words = replace(WORDS, recipient_name=name, app_name=one_line(name), data={**WORDS.data, "title": one_line(title)})
    mail = compose(replace(ENVELOPE, recipient_name=name), render(NoticeKind.CHANGESET_SUBMITTED, words))
    made = parsed(mail)
    assert [header for header, _ in made.items()] == HEADERS
    assert [address.addr_spec for address in made["To"].addresses] == ["bob@example.com"]
    assert len(list(made.walk())) == 3


@settings(deadline=None, max_examples=80)
@given(address=st.one_of(ANY_TEXT, st.tuples(ANY_TEXT, st.sampled_from(["example.com", "intern"])).map("@".join)))
def test_an_address_is_one_mailbox_or_gets_no_mail(address: str) -> None:
    try:
        mail = compose(replace(ENVELOPE, recipient=address), render(NoticeKind.INVITE, WORDS))
    except BadAddressError:
        return
    (only,) = parsed(mail)["To"].addresses
    assert only.addr_spec == mail.recipient
    assert not set(mail.recipient) & set("\r\n\0<>, ")


@KINDS
def test_what_a_notice_brings_beside_what_its_mail_says_gets_into_no_mail(kind: NoticeKind) -> None:
    """A secret that some event carried along by mistake would stay out."""
    planted = "open-sesame"
    more = dict.fromkeys(("value", "secret", "secrets", "env_vars", "comment", "output", "password", "before", "after"), planted)
    rendered = render(kind, replace(WORDS, data={**WORDS.data, **more}))
    assert planted not in f"{rendered.subject}{rendered.text}{rendered.page}"


def test_markup_in_a_name_is_shown_as_it_is_written() -> None:
    name = "<b>Ann & Bob</b>"
    text, page = bodies(compose(ENVELOPE, render(NoticeKind.INVITE, replace(WORDS, actor_name=name))))
    assert name in text
    assert escape(name, quote=False) in page


@pytest.mark.parametrize("kind", [NoticeKind.INVITE, NoticeKind.PASSWORD_RESET, NoticeKind.ACCOUNT_CREATED], ids=str)
def test_a_name_beyond_ascii_arrives_as_it_is(kind: NoticeKind) -> None:
    name = 'Łukasz O\'Neil, "L"'
    mail = compose(replace(ENVELOPE, recipient_name=name), render(kind, replace(WORDS, recipient_name=name, actor_name=name)))
    assert parsed(mail)["To"].addresses[0].display_name == name
    text, _ = bodies(mail)
    assert name in text


def test_a_subject_beyond_ascii_arrives_as_it_is() -> None:
    mail = compose(ENVELOPE, render(NoticeKind.INVITE, replace(WORDS, app_name="Käse 🧀")))
    assert parsed(mail)["Subject"] == "Invitation to Käse 🧀"


def test_an_account_with_a_password_is_told_without_a_token() -> None:
    words = replace(WORDS, link="https://conman.test/", expires_at=None)
    text, page = bodies(compose(ENVELOPE, render(NoticeKind.ACCOUNT_CREATED, words)))
    assert "token" not in text + page
    assert "https://conman.test/" in Page(page).links


def test_a_template_that_asks_for_what_there_is_not_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        environment().from_string("{{ nonsense }}").render()


@pytest.mark.parametrize(
    "email",
    [
        "a\r\nb@example.com",
        "a b@example.com",
        "a@b@c",
        "",
        "@",
        "a@",
        "<a@b.local>",
        "a,b@c.local",
        "a@[127.0.0.1]",
        "=?utf-8?q?=0d=0aBcc?=@example.com",
        "ä@intern.local x",
    ],
)
def test_an_address_that_could_say_more_than_one_thing_gets_no_mail(email: str) -> None:
    with pytest.raises(BadAddressError):
        mailbox(email)


@pytest.mark.parametrize(
    ("email", "written"),
    [
        ("ann@example.com", "ann@example.com"),
        ("admin@conman.local", "admin@conman.local"),
        ("ops@db.internal", "ops@db.internal"),
        ("bob@bücher.example", "bob@xn--bcher-kva.example"),
        ("jürgen@example.com", "jürgen@example.com"),
    ],
)
def test_an_address_is_written_as_smtp_takes_it(email: str, written: str) -> None:
    mail = compose(replace(ENVELOPE, recipient=email), render(NoticeKind.INVITE, WORDS))
    assert (mail.recipient, mail.smtputf8) == (written, not written.isascii())


NOTICE = Notice(
    kind=NoticeKind.INVITE,
    at=AT,
    entity_type="invite",
    entity_id="i",
    token=TokenRef(purpose=TokenPurpose.INVITE, record_id="i", number=1),
)


@pytest.mark.parametrize(
    ("purpose", "link"),
    [
        (TokenPurpose.INVITE, f"https://conman.test/base/accept-invite?token={TOKEN}"),
        (TokenPurpose.PASSWORD_RESET, f"https://conman.test/base/reset-password?token={TOKEN}"),
    ],
    ids=str,
)
def test_a_token_leads_to_the_page_that_takes_it(purpose: TokenPurpose, link: str) -> None:
    notice = NOTICE.model_copy(update={"token": TokenRef(purpose=purpose, record_id="i", number=1)})
    assert links.notice_link("https://conman.test/base", notice, TOKEN) == link


def test_only_a_notice_with_a_token_has_one_in_its_link() -> None:
    assert links.notice_link("https://conman.test", NOTICE.model_copy(update={"token": None}), TOKEN) == "https://conman.test/"


@pytest.mark.parametrize("kind", [NoticeKind.REVIEW_REQUESTED, NoticeKind.REVIEW_REMINDER], ids=str)
def test_who_is_to_review_is_led_to_the_changeset(kind: NoticeKind) -> None:
    notice = Notice(kind=kind, at=AT, app_id="shop", entity_type="changeset", entity_id="c")
    assert links.notice_link("https://conman.test", notice, None) == "https://conman.test/apps/shop/changesets/c"


ABOUT_DEPLOYMENTS = [kind for kind in NoticeKind if kind.value.startswith("deployment_")]
ABOUT_DRIFT = [NoticeKind.DRIFT_DETECTED, NoticeKind.DRIFT_HEAL_STOPPED]


@pytest.mark.parametrize(
    ("kind", "page"),
    [(kind, "deployments") for kind in ABOUT_DEPLOYMENTS] + [(kind, "environments") for kind in ABOUT_DRIFT],
    ids=str,
)
def test_who_is_told_of_a_deployment_or_of_drift_is_led_to_it(kind: NoticeKind, page: str) -> None:
    notice = Notice(kind=kind, at=AT, app_id="shop", entity_type=page[:-1], entity_id="d/1")
    assert links.notice_link("https://conman.test", notice, None) == f"https://conman.test/apps/shop/{page}/d%2F1"


@pytest.mark.parametrize(
    ("kind", "subject", "says"),
    [
        (
            NoticeKind.DEPLOYMENT_WAITS_FOR_APPROVAL,
            "Waits for approval: promotion to Production (release r2026.01.31.1)",
            ["asked for by Eve", "It needs 2 approvals of a config manager or higher, until 2026-02-01 09:30 UTC."],
        ),
        (
            NoticeKind.DEPLOYMENT_WARNING,
            "Would fail now: promotion to Production (release r2026.01.31.1)",
            ["to start at 2026-02-01 08:00 UTC", "Production is frozen then."],
        ),
        (
            NoticeKind.DEPLOYMENT_BLOCKED_BY_DRIFT,
            "Blocked by drift: promotion to Production (release r2026.01.31.1)",
            ["Differences: 3.", "canceled at 2026-02-01 10:00 UTC if nobody does"],
        ),
        (NoticeKind.DEPLOYMENT_STARTED, "Started: promotion to Production (release r2026.01.31.1)", ["has started"]),
        (NoticeKind.DEPLOYMENT_SUCCEEDED, "Succeeded: promotion to Production (release r2026.01.31.1)", ["has succeeded"]),
        (
            NoticeKind.DEPLOYMENT_FAILED,
            "Failed: promotion to Production (release r2026.01.31.1)",
            ["has failed", "The health command ended with 1."],
        ),
        (
            NoticeKind.DEPLOYMENT_CANCELED,
            "Approvals expired: promotion to Production (release r2026.01.31.1)",
            ["it did not get its approvals in time"],
        ),
        (
            NoticeKind.DEPLOYMENT_AUTO_ROLLED_BACK,
            "Rolled back by itself: promotion to Production (release r2026.01.31.1)",
            ["what was there before was deployed again", "The health command ended with 1.", "marked bad"],
        ),
        (NoticeKind.DEPLOYMENT_HEALED, "Healed: Production", ["was put back to what was last applied there"]),
        (NoticeKind.DRIFT_DETECTED, "Drift: Production", ["is not what was last applied there. Differences: 3."]),
        (NoticeKind.DRIFT_HEAL_STOPPED, "Healing stopped: Production", ["Nothing is put back by itself there any more"]),
    ],
    ids=str,
)
def test_a_notice_of_a_deployment_says_what_where_and_what_to_do(kind: NoticeKind, subject: str, says: list[str]) -> None:
    rendered = render(kind, WORDS)
    page = " ".join(re.sub("<[^>]*>", "", rendered.page).split())
    assert rendered.subject.strip() == subject
    assert [words for words in says if words not in rendered.text or words not in page] == []
    assert "Shop" in rendered.text


@pytest.mark.parametrize(
    ("settings", "base", "host", "sender"),
    [
        ({}, "http://127.0.0.1:8080", "127.0.0.1", "Conman <conman@localhost>"),
        ({"host": "0.0.0.0", "port": 9000}, "http://127.0.0.1:9000", "127.0.0.1", "Conman <conman@localhost>"),
        ({"host": "::1"}, "http://[::1]:8080", "[::1]", "Conman <conman@localhost>"),
        ({"host": "conman.internal"}, "http://conman.internal:8080", "conman.internal", "Conman <conman@conman.internal>"),
        ({"public_url": "https://conman.test/"}, "https://conman.test", "conman.test", "Conman <conman@conman.test>"),
        (
            {"public_url": "https://conman.test:8443/base/", "mail_from": "ops@example.com"},
            "https://conman.test:8443/base",
            "conman.test",
            "ops@example.com",
        ),
    ],
)
def test_links_and_sender_follow_the_public_url(settings: dict[str, object], base: str, host: str, sender: str) -> None:
    made = Settings(**settings)  # type: ignore[arg-type]
    assert (links.public_base(made), links.public_host(made), links.sender(made)) == (base, host, sender)


def test_no_template_has_a_word_of_its_own_for_a_token() -> None:
    """The link alone carries it."""
    assert [path.name for path in Path(TEMPLATES).iterdir() if "token" in path.read_text(encoding="utf-8")] == []


@KINDS
def test_the_docs_have_a_picture_of_each_mail_as_it_is_now(kind: NoticeKind) -> None:
    assert pictures.picture(kind).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert pictures.recorded()[kind.value] == pictures.digest(kind), "run `make mail-pictures`"


def test_the_docs_have_no_picture_that_no_kind_has_and_show_each_of_them() -> None:
    drawn = {path.stem for path in pictures.FOLDER.glob("*.png")}
    page = (pictures.FOLDER.parent / "notifications.md").read_text(encoding="utf-8")
    assert drawn == {*pictures.recorded()} == {kind.value for kind in NoticeKind}
    assert [kind for kind in drawn if f"mails/{kind}.png" not in page] == []

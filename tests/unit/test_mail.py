"""The rules of one mail: its states, who gets none, which link is dead, which refusal stays (`spec.md` 5 and 14)."""

from __future__ import annotations

import itertools

import pytest

from conman.domain.mail import (
    MOVES,
    OPEN,
    Addressee,
    AnotherSecretError,
    MailEnd,
    MailReason,
    MailState,
    SmtpStep,
    TokenRecord,
    before,
    counted,
    dead_token,
    harmless_reply,
    is_final,
    mail_id,
    message_id,
    one_line,
    tally,
    withheld,
)
from conman.domain.notification import ALWAYS_SENT, Notice, NoticeKind, Recipient, recipients
from conman.domain.tokens import TokenPurpose, make_token

PENDING, SENDING, SENT, FAILED, SKIPPED = MailState
AT = "2026-01-31T09:30:00.000Z"
LEGAL = {
    (PENDING, SENDING),
    (PENDING, SKIPPED),
    (PENDING, FAILED),
    (SENDING, SENDING),
    (SENDING, SENT),
    (SENDING, SKIPPED),
    (SENDING, FAILED),
}


@pytest.mark.parametrize(("origin", "target"), list(itertools.product(MailState, MailState)), ids=lambda state: state.value)
def test_a_mail_moves_as_the_table_says_and_in_no_other_way(origin: MailState, target: MailState) -> None:
    assert (target in MOVES[origin]) == ((origin, target) in LEGAL)
    assert (origin.value in before(target)) == ((origin, target) in LEGAL)


def test_a_mail_that_was_sent_failed_or_was_skipped_has_ended() -> None:
    assert OPEN == (PENDING, SENDING)


MEMBER = Addressee(has_account=True)


@pytest.mark.parametrize(
    ("addressee", "by_account", "auth_mail", "other_mail"),
    [
        (MEMBER, True, None, None),
        (Addressee(has_account=False), False, None, None),
        (Addressee(has_account=False), True, MailReason.ACCOUNT_GONE, MailReason.ACCOUNT_GONE),
        (Addressee(has_account=True, email_enabled=False), True, None, MailReason.EMAIL_OFF),
        (Addressee(has_account=True, is_member=False), True, None, MailReason.NOT_A_MEMBER),
        (Addressee(has_account=True, is_member=False, email_enabled=False), True, None, MailReason.NOT_A_MEMBER),
        (Addressee(has_account=True, disabled=True), True, MailReason.ACCOUNT_DISABLED, MailReason.ACCOUNT_DISABLED),
        (Addressee(has_account=True, disabled=True), False, MailReason.ACCOUNT_DISABLED, MailReason.ACCOUNT_DISABLED),
    ],
    ids=["member", "address", "gone", "email off", "no member", "neither", "disabled", "address of a disabled one"],
)
def test_who_gets_no_mail(
    addressee: Addressee, by_account: bool, auth_mail: MailReason | None, other_mail: MailReason | None
) -> None:
    assert withheld(addressee, by_account=by_account, always_sent=True) is auth_mail
    assert withheld(addressee, by_account=by_account, always_sent=False) is other_mail


def test_every_auth_mail_is_always_sent() -> None:
    assert {NoticeKind.INVITE, NoticeKind.PASSWORD_RESET, NoticeKind.ACCOUNT_CREATED} == ALWAYS_SENT


GOOD = TokenRecord(number=2, hash="right", expires_at="2026-01-31T09:30:00.001Z")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (GOOD, None),
        (None, MailReason.TOKEN_ENDED),
        (TokenRecord(2, None, GOOD.expires_at), MailReason.TOKEN_ENDED),
        (TokenRecord(3, "other", GOOD.expires_at), MailReason.TOKEN_REPLACED),
        (TokenRecord(2, "right", AT), MailReason.TOKEN_EXPIRED),
        (TokenRecord(2, "right", "2026-01-31T09:29:59.999Z"), MailReason.TOKEN_EXPIRED),
    ],
    ids=["good", "gone", "used or revoked", "resent", "expires now", "expired"],
)
def test_which_link_leads_nowhere(record: TokenRecord | None, reason: MailReason | None) -> None:
    assert dead_token(record, number=2, computed_hash="right", at=AT) is reason


def test_a_hash_that_differs_under_the_right_number_is_the_fault_of_the_secret_and_not_of_the_link() -> None:
    with pytest.raises(AnotherSecretError):
        dead_token(GOOD, number=2, computed_hash="wrong", at=AT)


@pytest.mark.parametrize("step", list(SmtpStep), ids=str)
@pytest.mark.parametrize("code", [None, 421, 450, 499, 500, 535, 550, 599, 600])
def test_only_a_5xx_to_the_recipient_or_the_content_stays(step: SmtpStep, code: int | None) -> None:
    stays = step in (SmtpStep.RECIPIENT, SmtpStep.CONTENT) and code in (500, 535, 550, 599)
    assert is_final(step, code) is stays


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Ann", "Ann"),
        ("  Ann \t B. ", "Ann B."),
        ("Ann\r\nBcc: eve@example.com", "Ann Bcc: eve@example.com"),
        ("Ann\x00\x07\x1b\x7f\x85Bee", "Ann Bee"),
        ("Ann\u2028\u2029Bee", "Ann Bee"),
        ("\u202eAnn\u2066", "Ann"),
        ("Ann\ud800", "Ann"),
        ("Łukasz 👩‍💻", "Łukasz 👩‍💻"),
        ("see https://evil.test/x", "see https: //evil.test/x"),
        ("\n\r", ""),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "…"),
    ],
    ids=range(12),
)
def test_a_name_becomes_one_harmless_line(text: str, line: str) -> None:
    assert one_line(text) == line


def test_a_server_s_words_are_kept_without_what_may_be_a_token() -> None:
    token = make_token("s" * 40, TokenPurpose.INVITE, "record", 1)
    assert harmless_reply(f"5.7.1 bad link https://c.test/a?token={token}\n  rejected") == (
        "5.7.1 bad link https: //c.test/a?token=… rejected"
    )
    assert harmless_reply("4.7.0 try again later") == "4.7.0 try again later"
    assert len(harmless_reply("word " * 1000)) <= 200


@pytest.mark.parametrize("cut", range(1, 43))
def test_no_piece_of_a_token_that_is_of_use_survives_a_server_s_line_break(cut: int) -> None:
    token = make_token("s" * 40, TokenPurpose.INVITE, "record", 1)
    kept = harmless_reply(f"bad {token[:cut]}\n{token[cut:]} link")
    pieces = [word for word in kept.split() if word in token]
    assert all(len(piece) < 16 for piece in pieces)


def test_ids_of_a_mail_are_the_same_again_and_differ_by_notice_and_recipient() -> None:
    first = mail_id("notice", AT, "ann")
    assert first == mail_id("notice", AT, "ann")
    assert len({first, mail_id("notice", AT, "bob"), mail_id("other", AT, "ann")}) == 3
    assert message_id(first, "conman.test") == f"<{first}@conman.test>"


def notice(kind: NoticeKind, actor: str | None = None) -> Notice:
    return Notice(kind=kind, at=AT, entity_type="user", entity_id="x", actor_user_id=actor)


def test_each_recipient_is_told_once_and_in_order() -> None:
    told = recipients(notice(NoticeKind.INVITE), ["b", "a", "b"], ["x@y", "z@y", "x@y"], {})
    assert [person.key for person in told] == ["b", "a", "x@y", "z@y"]


def test_an_address_stands_for_its_account_when_that_is_told_too() -> None:
    told = recipients(notice(NoticeKind.INVITE), ["a"], ["a@y", "b@y"], {"a@y": "a", "b@y": "b"})
    assert told == [Recipient(user_id="a"), Recipient(email="b@y")]


def test_who_did_it_gets_an_auth_mail_about_it_all_the_same() -> None:
    assert recipients(notice(NoticeKind.PASSWORD_RESET, "a"), ["a"], [], {}) == [Recipient(user_id="a")]


def test_ends_are_counted_by_state_and_by_what_kept_them() -> None:
    ends = [MailEnd(state=SENT)] * 2 + [MailEnd(state=FAILED, reason=MailReason.REFUSED, code=550)]
    counts = counted([MailEnd(state=SKIPPED, reason=MailReason.EMAIL_OFF)], counted(ends))
    assert counts == {"sent": 2, "failed": 1, "skipped": 1, "failed: refused 550": 1, "skipped: email_off": 1}
    assert tally(counts) == "2 sent, 1 failed (1 refused 550), 1 skipped (1 email_off)"
    assert tally(counted([])) == ""

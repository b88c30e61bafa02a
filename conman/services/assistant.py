"""The assistant: a review of a changeset, and answers to questions about it (`spec.md` 8). Nothing is changed or kept."""

from __future__ import annotations

import asyncio
import secrets as chance
from collections.abc import Sequence
from typing import Any

import structlog

from conman.domain.errors import ErrorCode, Unavailable, invalid
from conman.domain.risk_rules import advice, assess, summary
from conman.domain.risk_rules_facts import Risk
from conman.domain.risk_rules_secrets import scrub
from conman.git.adapter import ChangedPath
from conman.services.assistant_data import Proposal, Shown, facts_of, known_secrets, paths_of, proposal_of, shown_to_model
from conman.services.assistant_endpoint import Answer, Conversation, Endpoint, Message, ai_error, endpoint_of
from conman.services.assistant_prompt import (
    MOST_FINDINGS,
    Analysis,
    MalformedError,
    analyze_messages,
    chat_messages,
    named_files,
    read_analysis,
    repair_messages,
)
from conman.services.diffs import Sides
from conman.services.platform import Platform
from conman.store.database import Document

log = structlog.get_logger(__name__)

RULES = "rules"
"""The provider where no model is configured."""
SHORTEST_FOCUS_WORD = 3


async def analyze(platform: Platform, app: Document, document: Document, sides: Sides, focus: str | None) -> dict[str, Any]:
    """A review by the configured model, else by rules. Raises `ai_error`, and `VaultError` where a secret can't be had."""
    proposal = await proposal_of(platform, app, document, sides)
    endpoint = endpoint_of(platform.settings)
    if endpoint is None:
        return await _by_rules(platform, app, proposal, focus)
    shown, asked_focus = await _for_model(platform, app, proposal, await paths_of(platform.git, proposal), focus)
    mark = _mark(shown.text, asked_focus or "")
    async with endpoint.conversation() as conversation:
        found = await _reviewed(conversation, analyze_messages(shown.text, mark, asked_focus), shown)
    if found.invented:
        log.info("assistant_invented", model=endpoint.model, findings=found.invented)
    return {
        "provider": endpoint.model,
        "summary": " ".join(filter(None, (found.summary, shown.note))),
        "findings": found.findings,
        "suggestions": found.suggestions,
    }


async def chat(
    platform: Platform, app: Document, document: Document, sides: Sides, message: str, file_paths: Sequence[str] | None
) -> dict[str, Any]:
    """An answer to a question about the changeset, or about some of its files, and which of its files it names.

    Raises `unavailable` where no model is configured, `validation_error` for a file that is not in the diff, `ai_error`, and
    `VaultError` where a secret can't be had.
    """
    endpoint = required_endpoint(platform)
    proposal = await proposal_of(platform, app, document, sides)
    changed = await paths_of(platform.git, proposal)
    paths = [each.path for each in changed]
    for path in file_paths or ():
        if path not in paths:
            raise invalid("file_paths", f"{path!r} is no file of this changeset's diff")
    chosen = changed if file_paths is None else [each for each in changed if each.path in file_paths]
    shown, question = await _for_model(platform, app, proposal, chosen, message)
    mark = _mark(shown.text, question or "")
    async with endpoint.conversation() as conversation:
        answer = await conversation.ask(chat_messages(shown.text, mark, question or ""))
    reply = [answer.text.strip(), "(The answer was longer and is cut here.)" if answer.cut else "", shown.note]
    return {"reply": "\n\n".join(filter(None, reply)), "referenced_files": named_files(answer.text, paths)}


def required_endpoint(platform: Platform) -> Endpoint:
    """The configured endpoint. Raises `unavailable`, which says how to configure one."""
    endpoint = endpoint_of(platform.settings)
    if endpoint is None:
        raise Unavailable(
            ErrorCode.UNAVAILABLE,
            "No model is configured to chat with: let an operator set CONMAN_AI_BASE_URL and CONMAN_AI_MODEL (and"
            " CONMAN_AI_API_KEY where the endpoint needs one), and start Conman again.",
        )
    return endpoint


# -- By rules


async def _by_rules(platform: Platform, app: Document, proposal: Proposal, focus: str | None) -> dict[str, Any]:
    facts, note = await facts_of(platform, app, proposal)
    risks = await asyncio.to_thread(assess, facts)
    listed = f"The first {MOST_FINDINGS} are listed." if len(risks) > MOST_FINDINGS else ""
    return {
        "provider": RULES,
        "summary": " ".join(filter(None, (summary(len(facts.files), risks), listed, note))),
        "findings": [_finding(risk) for risk in _focused(risks, focus)[:MOST_FINDINGS]],
        "suggestions": advice(risks),
    }


def _finding(risk: Risk) -> dict[str, Any]:
    line = {} if risk.line is None else {"line": risk.line}
    return {"severity": risk.severity.value, "file_path": risk.file_path, **line, "message": risk.message}


def _focused(risks: Sequence[Risk], focus: str | None) -> list[Risk]:
    """The risks, first those whose file or message has a word of the focus: rules understand no more of it."""
    words = [word for word in (focus or "").lower().split() if len(word) >= SHORTEST_FOCUS_WORD]
    return sorted(risks, key=lambda risk: not any(word in f"{risk.file_path} {risk.message}".lower() for word in words))


# -- By a model


async def _for_model(
    platform: Platform, app: Document, proposal: Proposal, changed: Sequence[ChangedPath], words: str | None
) -> tuple[Shown, str | None]:
    """The diff, and what somebody wrote about it, both without secrets."""
    secrets = await known_secrets(platform, app, proposal)
    shown = await shown_to_model(platform, app, proposal, secrets, changed, platform.settings.ai_max_input_bytes)
    return shown, None if words is None else scrub(secrets.scrub_text(words))


def _mark(*texts: str) -> str:
    """A mark that stands in none of the texts."""
    while True:
        mark = chance.token_hex(16)
        if not any(mark in text for text in texts):
            return mark


async def _reviewed(conversation: Conversation, messages: Sequence[Message], shown: Shown) -> Analysis:
    """The model's review; an answer of another form is told what is wrong with it, once."""
    answer = await conversation.ask(messages)
    try:
        return read_analysis(answer.text, shown.lines)
    except MalformedError as error:
        log.info("assistant_malformed", model=conversation.endpoint.model, wrong=str(error), cut=answer.cut)
        return await _repaired(conversation, messages, answer, "it was too long" if answer.cut else str(error), shown)


async def _repaired(conversation: Conversation, messages: Sequence[Message], first: Answer, wrong: str, shown: Shown) -> Analysis:
    answer = await conversation.ask(repair_messages(messages, first.text, wrong))
    try:
        return read_analysis(answer.text, shown.lines)
    except MalformedError as error:
        log.warning("assistant_malformed", model=conversation.endpoint.model, wrong=str(error), cut=answer.cut)
        raise ai_error(
            "The assistant's answer was too long, twice: let an operator raise CONMAN_AI_MAX_OUTPUT_TOKENS."
            if answer.cut
            else "The assistant's answer was not of the form that was asked for, twice: try again, or use another model."
        ) from error

"""The assistant's review of a changeset, and questions about it. Both change nothing."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import Body, body
from conman.api.routes import data
from conman.api.routes.diffs import draft_shown
from conman.domain.changeset import Changeset
from conman.domain.roles import Capability
from conman.services import assistant, diffs
from conman.store import records
from conman.store.database import Document

router = APIRouter(prefix="/apps/{app}", tags=["assistant"])
_C = Capability

MOST_WORDS = 4_000
"""The longest focus or question, characters."""
MOST_FILES = 100
"""A question is about so many files at most."""


class Focus(Body):
    """What a review should look at above all."""

    focus: str | None = Field(default=None, max_length=MOST_WORDS)


class Question(Body):
    """A question about the changeset, or about some of its files."""

    message: str = Field(min_length=1, max_length=MOST_WORDS, pattern=r"\S")
    file_paths: list[Annotated[str, Field(min_length=1, max_length=4_096)]] | None = Field(default=None, max_length=MOST_FILES)


async def _changeset(caller: Caller, changeset_id: str) -> tuple[Document, diffs.Sides]:
    """The changeset, and the commits that its present revision or its draft compares."""
    found = await records.get(caller.platform.db, "changesets", changeset_id, app_id=caller.of_app["_id"], what="changeset")
    changeset = Changeset.model_validate(found["owned"])
    return found, diffs.revision_sides(changeset, None, None) or await draft_shown(caller, changeset)


@router.post("/changesets/{cs}/analyze")
async def analyze_changeset(
    cs: str, caller: Caller = capability(_C.ASSISTANT_ANALYZE), asked: Focus = body(Focus)
) -> dict[str, Any]:
    """The risks of a changeset, by the configured model or else by rules."""
    document, sides = await _changeset(caller, cs)
    return data(await assistant.analyze(caller.platform, caller.of_app, document, sides, asked.focus))


@router.post("/changesets/{cs}/chat")
async def chat_about_changeset(
    cs: str, caller: Caller = capability(_C.ASSISTANT_CHAT), asked: Question = body(Question)
) -> dict[str, Any]:
    """An answer of the configured model."""
    document, sides = await _changeset(caller, cs)
    return data(await assistant.chat(caller.platform, caller.of_app, document, sides, asked.message, asked.file_paths))

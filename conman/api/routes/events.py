"""What happens in an app, live."""

from __future__ import annotations

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from conman.api.access import Caller, capability
from conman.api.streams import ACCESS_SECONDS, EventStream, frame, stream
from conman.domain.errors import invalid
from conman.domain.feed import FeedType
from conman.domain.roles import Capability
from conman.services import events

router = APIRouter(prefix="/apps/{app}/events", tags=["events"])

PLACE = r"^[0-9]{1,12}$"
"""An event's id."""


@router.get("", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
async def stream_events(
    request: Request,
    after: str | None = Query(None, pattern=PLACE),
    types: list[str] | None = Query(None, max_length=20),
    last_event_id: str | None = Header(None, alias="Last-Event-ID", pattern=PLACE),
    caller: Caller = capability(Capability.EVENT_READ),
) -> EventStream:
    """What happens in the app, as server-sent events until the caller's access ends.

    Events are named after what they are about (`changeset`, `queue`, `release`, `deployment`, `job`, `temp_env`, `environment`,
    `app`; `types` takes some of them, with commas between them or repeated). Their data say `{id, at, type, action, entity_id}`
    and how the record stands: read it for the whole. An event's id is its number; a client that sends the last one it saw, as
    `Last-Event-ID` or `after`, goes on behind it, without either from now on. `reset`: what came after it is no longer kept; read
    the records anew, the stream goes on from now.
    """
    wanted = _wanted(types)
    given = last_event_id if last_event_id is not None else after
    tails: events.FeedTails = request.app.state.feed_tails
    app_id = caller.of_app["_id"]
    news = events.follow(tails, app_id, int(given) if given is not None else None, patience=ACCESS_SECONDS)
    return stream(request, caller, Capability.EVENT_READ, news, lambda each: _frames(each, wanted))


def _wanted(types: list[str] | None) -> set[str]:
    known = {kind.value for kind in FeedType}
    if types is None:
        return known
    named = {part.strip() for each in types for part in each.split(",")}
    for one in sorted(named - known):
        raise invalid("types", f"{one[:40]!r} is nothing that is told; choose from {', '.join(sorted(known))}")
    return named


def _frames(news: events.News, wanted: set[str]) -> str:
    match news:
        case events.Start(seq):
            # An id without data is no event: a client that is cut off before the first one knows where to go on.
            return f"id: {seq}\n\n"
        case events.Reset(seq):
            return frame("reset", "{}", seq)
        case events.Events(told):
            text = "".join(frame(one.type, one.data, one.seq) for one in told if one.type in wanted)
            return text or f"id: {told[-1].seq}\n\n"
        case events.Silence():
            return ""

"""One router per group of `api.md` 3; each parses, asks a service, and shapes the reply."""

from __future__ import annotations

from typing import Any

from fastapi import Query

from conman.store.records import Page

PageNumber = Query(1, ge=1, le=1_000_000, description="page, from 1")
PageLimit = Query(20, ge=1, le=100, description="records per page")


def data(value: Any) -> dict[str, Any]:
    """The success envelope."""
    return {"data": value}


def listed(items: list[Any], page: Page) -> dict[str, Any]:
    """The success envelope of one page of a list."""
    return {"data": items, "pagination": {"page": page.page, "limit": page.limit, "total": page.total}}


def cut(items: list[Any], number: int, limit: int) -> dict[str, Any]:
    """The success envelope of one page of what is whole in memory."""
    shown = items[(number - 1) * limit : number * limit]
    return {"data": shown, "pagination": {"page": number, "limit": limit, "total": len(items)}}

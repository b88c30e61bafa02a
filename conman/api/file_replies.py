"""A file's bytes as a reply: whole, one range of them, or nothing that the client does not have already; and of which type."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator, Mapping
from typing import Final

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from conman.api.ranges import matches, parse_range

CHUNK: Final = 64 * 1024
"""Bytes that a reply sends at a time."""
BYTES: Final = "application/octet-stream"
_TYPES = mimetypes.MimeTypes(filenames=())
"""Types by extension that do not depend on what the machine has installed."""
for _extension, _type in {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".toml": "application/toml",
    ".jsonl": "application/jsonl",
    ".map": "application/json",
    ".md": "text/markdown",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}.items():
    _TYPES.add_type(_type, _extension)
_PACKED: Final[Mapping[str, str]] = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "compress": "application/x-compress",
    "br": "application/x-brotli",
}
"""What `archive.tar.gz` is when it is sent as it is: its bytes are not taken apart on the way."""
_TEXT: Final = frozenset(f"application/{name}" for name in ("json", "jsonl", "xml", "yaml", "toml", "manifest+json")) | {
    "image/svg+xml"
}
"""Types besides `text/…` whose bytes are text."""


def type_by_name(path: str) -> str:
    """The media type that a file's name promises."""
    return _TYPES.guess_type(path, strict=True)[0] or BYTES


def media_type(path: str, data: bytes) -> str:
    """The media type of a file, for a client that believes it: by its name, with the charset of text.

    A name that promises nothing (`LICENSE`, `app.properties`) is text where the bytes are.
    """
    by_name, packed = _TYPES.guess_type(path, strict=True)
    if packed is not None:
        return _PACKED.get(packed, BYTES)
    if by_name is not None and not by_name.startswith("text/") and by_name not in _TEXT:
        return by_name
    return f"{by_name or 'text/plain'}; charset=utf-8" if _is_text(data) else (by_name or BYTES)


def _is_text(data: bytes) -> bool:
    if b"\0" in data:
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _sent(etag: str, headers: Mapping[str, str]) -> dict[str, str]:
    return {"ETag": etag, "Accept-Ranges": "bytes", **headers}


def not_modified(request: Request, *, etag: str, headers: Mapping[str, str]) -> Response | None:
    """The answer to who has this version already, for which the file need not be read; None: the file is wanted."""
    if not matches(request.headers.get("if-none-match"), etag):
        return None
    return Response(status_code=304, headers=_sent(etag, headers))


def file_reply(request: Request, data: bytes, *, etag: str, media_type: str, headers: Mapping[str, str]) -> Response:
    """The answer to a GET or HEAD of a file (RFC 9110 sections 13 and 14). Raises `UnsatisfiableRangeError`."""
    same = not_modified(request, etag=etag, headers=headers)
    if same is not None:
        return same
    sent, size = _sent(etag, headers), len(data)
    is_ranged = request.method == "GET" and request.headers.get("if-range") in (None, etag)  # a HEAD has no ranges
    part = parse_range(request.headers.get("range") if is_ranged else None, size)
    start, end = part or (0, size)
    if part is not None:
        sent["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    sent["Content-Length"] = str(end - start)
    status = 200 if part is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=sent, media_type=media_type)
    return StreamingResponse(_chunks(data, start, end), status_code=status, headers=sent, media_type=media_type)


def _chunks(whole: bytes, start: int, end: int) -> Iterator[bytes]:
    view = memoryview(whole)
    for place in range(start, end, CHUNK):
        yield bytes(view[place : min(place + CHUNK, end)])

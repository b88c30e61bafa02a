"""`make mail-pictures`: a picture of each kind's mail for docs/mails, made from the real templates by WeasyPrint and PDFium.

`pages.json` beside the pictures has the digest of the page that each was made from, so that a picture can be told to be stale
where neither program is installed. A picture whose page is the same stays as it is.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from conman.domain.notification import NoticeKind
from conman.mail.rendering import render
from tests.mail.samples import words_of

FOLDER = Path(__file__).parents[2] / "docs" / "mails"
RECORD = FOLDER / "pages.json"
WIDTH = 600
"""Of a page in CSS pixels: what mail programs show a mail in."""
_TALLEST = 1200
_SCALE = 1.25


def picture(kind: NoticeKind) -> Path:
    """Where a kind's picture is."""
    return FOLDER / f"{kind.value}.png"


def digest(kind: NoticeKind) -> str:
    """Of the page that a kind's picture shows."""
    return hashlib.sha256(render(kind, words_of(kind)).page.encode()).hexdigest()


def recorded() -> dict[str, str]:
    """The digests of the pages that the pictures were made from."""
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}


def draw(page: str, file: Path) -> None:
    """The page as a PNG in few colours, cut to what is on it."""
    from PIL import Image, ImageChops
    from pypdfium2 import PdfDocument
    from weasyprint import CSS, HTML

    sheet = CSS(string=f"@page {{ size: {WIDTH}px {_TALLEST}px; margin: 0 }} body {{ background: #fff }}")
    document = PdfDocument(HTML(string=page).write_pdf(stylesheets=[sheet]))
    drawn = document[0].render(scale=_SCALE * 4 / 3).to_pil().convert("RGB")
    used = ImageChops.difference(drawn, Image.new("RGB", drawn.size, "white")).getbbox()
    height = drawn.height if used is None else min(used[3] + 30, drawn.height)
    drawn.crop((0, 0, drawn.width, height)).quantize(32).save(file, optimize=True)


def main() -> None:
    """Draw what is missing or stale, and remove what no kind has."""
    FOLDER.mkdir(exist_ok=True)
    before, now = recorded(), {kind.value: digest(kind) for kind in NoticeKind}
    for kind in NoticeKind:
        if before.get(kind.value) != now[kind.value] or not picture(kind).is_file():
            draw(render(kind, words_of(kind)).page, picture(kind))
    for file in FOLDER.glob("*.png"):
        if file.stem not in now:
            file.unlink()
    RECORD.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

r"""Whether a page is being built, and the style that outputs bring along where there is no page to bring it."""

import os
from functools import cache
from pathlib import Path

STATIC = Path(__file__).parent / "static"


def in_book_build():
    r"""Return whether the page is being built (LORA_COURSE_BOOK_BUILD=1), with our style sheets on it."""
    return os.environ.get("LORA_COURSE_BOOK_BUILD") == "1"


@cache
def _sheet(name):
    return (STATIC / name).read_text(encoding="utf-8")


def with_style(html, name):
    r"""Return the block `html`, in a live notebook with the style sheet `name` of ours in front of it."""
    return html if in_book_build() else f"<style>{_sheet(name)}</style>{html}"

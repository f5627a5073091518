"""The pages of the documentation, and what they consist of."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SITE = sorted(DOCS.glob("**/*.md"))
MAX_PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "CONTRIBUTING.md", *SITE]

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")

each_page = pytest.mark.parametrize("page", MAX_PAGES, ids=lambda page: str(page.relative_to(ROOT)))


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str


@cache
def content(page: Path) -> str:
    """Return the text of a page."""
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return FENCE.sub("", content(page))


def all_blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return [Block(language, dedent(text)) for _, language, text in FENCE.findall(content(page))]


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the texts of the fenced blocks in these languages."""
    return [block.text for block in all_blocks(page) if block.language in languages]


def codes(page: Path) -> list[str]:
    """Return the spans of code in a page's prose."""
    return CODE.findall(prose(page))


def links(page: Path) -> list[str]:
    """Return the addresses that a page links to."""
    return LINK.findall(prose(page))

"""Checks of the documentation: links lead somewhere, and both READMEs say the same.

`make docs` checks the links between the pages of the site; these tests check the rest, with README and CONTRIBUTING.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pages import DOCS, HEADING, LINK, ROOT, SITE, blocks, content, each_page, links, prose


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    text = LINK.sub("", heading).replace("[", "").replace("`", "").strip().lower()
    return re.sub(r"[^\w\s-]", "", text).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {anchor(heading) for _, heading in HEADING.findall(prose(page))}


def dead_links(page: Path) -> Iterator[str]:
    for link in links(page):
        address, _, fragment = link.partition("#")
        if re.match(r"https?://", link):
            continue
        target = (page.parent / address).resolve() if address else page
        exists = target.exists() and target.is_relative_to(ROOT)
        if not exists or (fragment and fragment not in anchors(target)):
            yield link


@each_page
def test_links_lead_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    assert list(dead_links(page)) == []


@pytest.mark.parametrize("page", SITE, ids=lambda page: page.name)
def test_a_page_of_the_site_links_to_nothing_outside_of_it(page: Path) -> None:
    paths = [link for link in links(page) if not re.match(r"https?://|#", link)]
    assert [path for path in paths if not (page.parent / path).resolve().is_relative_to(DOCS)] == []


def nav_pages(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        yield from nav_pages(list(nav.values()))
    elif isinstance(nav, list):
        for entry in nav:
            yield from nav_pages(entry)


def test_the_menu_of_the_site_has_every_page_once() -> None:
    project = tomllib.loads(content(ROOT / "zensical.toml"))["project"]
    assert sorted(nav_pages(project["nav"])) == [str(page.relative_to(DOCS)) for page in SITE]


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "docs/index.md"])
def test_the_glossary_is_linked(name: str) -> None:
    page = ROOT / name
    assert DOCS / "glossary.md" in {(page.parent / link).resolve() for link in links(page)}


# --- both languages


def headings(page: Path) -> list[int]:
    return [len(marks) for marks, _ in HEADING.findall(prose(page))]


def commands(page: Path) -> list[str]:
    """Return the commands that a page shows, without comments."""
    return [re.sub(r" +# .*$", "", text, flags=re.MULTILINE) for text in blocks(page, "bash")]


def test_both_readmes_have_the_same_parts_commands_and_links() -> None:
    english, chinese = ROOT / "README.md", ROOT / "README.zh-CN.md"
    assert headings(english) == headings(chinese)
    assert commands(english) == commands(chinese)
    assert blocks(english, "python", "") == blocks(chinese, "python", "")
    names = {"README.md", "README.zh-CN.md"}
    assert set(links(english)) ^ set(links(chinese)) == names

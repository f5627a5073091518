"""Checks of the documentation: the application answers every `curl` command as its page shows."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from pipeline.domain.links.platforms import CrawlRecord, Link, LinkKind
from pipeline.domain.tasks.task import Task
from tests.support.pages import MAX_PAGES, ROOT, all_blocks
from tests.support.recordings import encode, tone
from tests.unit.deployments.api.world import TRANSCRIPT, World, client_of

SERVICE = re.compile(r"^http://(?:HOST|127\.0\.0\.1):8000(?=/)")
KEY = re.compile(r'"(\w+)":')
REFUSED = re.compile(r'^\{"detail":\{"code":(\d+)', re.MULTILINE)
RECORDING = encode(tone(1.0), "mp4", picture=True)
RECORD = CrawlRecord(
    platform="tiktok",
    media_id="1",
    url="https://www.tiktok.com/@_/video/1",
    crawled_at=datetime(2026, 1, 1, tzinfo=UTC),
    library="yt-dlp",
)


class Example(NamedTuple):
    """A `curl` command of a page, with the output shown for the block it is in.

    Attributes:
        page: the page.
        command: one line of a shell, joined where it is continued.
        output: the text of the next block without a language, or nothing.
    """

    page: Path
    command: str
    output: str


@dataclass
class Call:
    """A request as `curl` sends it.

    Attributes:
        method: of HTTP; ``None`` until the command says, which leaves it to the data.
        url: without scheme and host.
        values: fields of a form.
        files: of a multipart form, by their field.
        body: as it stands, where its content type is named.
    """

    method: str | None = None
    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    body: str | None = None

    def data(self, text: str) -> None:
        """Add the value of an option `-d`."""
        if "content-type" in self.headers:
            self.body = text
        else:
            name, _, value = text.partition("=")
            self.values[name] = value

    def form(self, text: str) -> None:
        """Add the value of an option `-F`."""
        name, _, value = text.partition("=")
        if value.startswith("@"):
            self.files[name] = (value[1:], RECORDING)
        else:
            self.values[name] = value

    async def send(self, client: httpx.AsyncClient) -> httpx.Response:
        """Send it, and return the answer."""
        method = self.method or ("POST" if self.values or self.files or self.body else "GET")
        form = {"data": self.values, "files": self.files} if self.body is None else {"content": self.body}
        return await client.request(method, self.url, headers=self.headers, **form)


def parse(command: str) -> Call:
    """Read a command with the few options that the pages use."""
    call, words = Call(), iter(shlex.split(command, comments=True)[1:])
    for word in words:
        if word in ("-s", "-sN"):
            continue
        if word == "-X":
            call.method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            call.headers[name.lower()] = value
        elif word == "-d":
            call.data(next(words))
        elif word == "-F":
            call.form(next(words))
        elif word == "-o":
            next(words)
        else:
            assert SERVICE.match(word), word
            call.url = SERVICE.sub("", word)
    return call


def examples() -> Iterator[Example]:
    for page in MAX_PAGES:
        blocks = all_blocks(page)
        for index, block in enumerate(blocks):
            if block.language == "bash":
                output = "".join(after.text for after in takewhile(lambda b: b.language == "", blocks[index + 1 :]))
                lines = block.text.replace("\\\n", "").splitlines()
                yield from (Example(page, line, output) for line in lines if line.startswith("curl "))


def named(example: Example) -> str:
    return f"{example.page.relative_to(ROOT)}: {parse(example.command).url}"


async def task_of(world: World, example: Example) -> Task:
    """Make the one task that the example asks for: finished, or with a link where it asks for a record."""
    if "retry" in example.command:
        return await world.failed("attempts_exhausted")
    if "crawl/records" in example.command:
        lease = await world.processing(link=Link(LinkKind.TIKTOK), file_url=RECORD.url, media_key=None)
        await world.store.save_crawl_record(lease, RECORD)
        return await world.store.get(lease.task_id)
    return await world.completed(TRANSCRIPT)


def expected_status(example: Example) -> int:
    """Return the status of the answer that the page shows: 200, or that of a refusal."""
    refused = REFUSED.search(example.output)
    return int(refused[1]) if refused and "/tiktok/" in example.command else 200


@pytest.mark.parametrize("example", list(examples()), ids=named)
async def test_the_application_answers_a_command_as_its_page_shows(example: Example) -> None:
    world = World()
    task = await task_of(world, example)
    call = parse(example.command)
    call.url = re.sub(r"task_id=\d+", f"task_id={task.id}", call.url)
    api = world.api(fetch_available=True, llm={"base_url": "http://llm.internal/v1", "model": "writer"})

    async with client_of(api) as client:
        answer = await call.send(client)

    assert answer.status_code == expected_status(example), answer.text


def test_the_pages_show_commands_of_every_kind() -> None:
    urls = {parse(example.command).url.partition("?")[0] for example in examples()}
    assert {"/api/whisper/tasks/create", "/api/whisper/tasks/result", "/api/whisper/tasks/events"} <= urls


@pytest.mark.parametrize("example", list(examples()), ids=named)
async def test_the_output_shown_has_no_field_that_is_gone(example: Example) -> None:
    api = World().api()
    documented = set(KEY.findall(json.dumps(api.openapi())))
    known = documented | {attribute.name for attribute in fields(Task)}  # OpenAPI does not describe events
    assert set(KEY.findall(example.output)) <= known

"""The documentation's Python examples with OpenAI's client, run unchanged over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from tests.support.pages import DOCS, ROOT, blocks

SHOWN_AT = "http://127.0.0.1:8000"
EXAMPLES = [text for page in (ROOT / "README.md", DOCS / "first-steps.md") for text in blocks(page, "python")]
OF_OPENAI = [text for text in EXAMPLES if "OpenAI(" in text]


@pytest.fixture
async def address(api: FastAPI) -> AsyncIterator[str]:
    """Address of the application on a port that the system chooses."""
    server = uvicorn.Server(uvicorn.Config(api, port=0, log_level="error", lifespan="off", ws="none"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
    [listener] = server.servers
    yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


def run(example: str) -> str:
    """Run an example and return its output."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(example, "example", "exec"), {})
    return output.getvalue()


@pytest.mark.parametrize("example", OF_OPENAI, ids=lambda text: text.count("\n"))
async def test_an_example_prints_language_and_text(
    example: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "talk.mp3").write_bytes(b"ID3 audio")
    monkeypatch.chdir(tmp_path)
    assert SHOWN_AT in example

    output = await asyncio.to_thread(run, example.replace(SHOWN_AT, address))

    assert "english" in output
    assert len(output) > len("english 50.0 ")


def test_both_pages_show_the_client() -> None:
    assert len(OF_OPENAI) == 2

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from deployments.api.routes.subtitles import TranscriptFile
from tests.unit.deployments.api.world import TRANSCRIPT, World, detail, fields

SUBTITLES = "/api/whisper/generate_subtitles"


async def test_srt_is_the_default(client: httpx.AsyncClient, world: World) -> None:
    await world.completed()
    answer = await client.get(SUBTITLES, params={"task_id": 1})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/srt; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="Task_1_Subtitle.srt"'
    assert answer.text.startswith("1\n00:00:00,000 --> 00:00:0")


@pytest.mark.parametrize(
    ("output_format", "media_type"),
    [
        ("vtt", "text/vtt; charset=utf-8"),
        ("VTT", "text/vtt; charset=utf-8"),
        ("ass", "text/x-ssa; charset=utf-8"),
        ("lrc", "text/plain; charset=utf-8"),
        ("txt", "text/plain; charset=utf-8"),
        ("tsv", "text/tab-separated-values; charset=utf-8"),
        ("json", "application/json"),
    ],
)
async def test_other_formats(client: httpx.AsyncClient, world: World, output_format: str, media_type: str) -> None:
    await world.completed()
    answer = await client.get(SUBTITLES, params={"task_id": 1, "output_format": output_format})
    assert answer.headers["content-type"] == media_type
    assert answer.headers["content-disposition"].endswith(f'"Task_1_Subtitle.{output_format.lower()}"')
    assert "Kenobi" in answer.text


async def test_a_style(client: httpx.AsyncClient, world: World) -> None:
    await world.completed()
    style: dict[str, str | int] = {"task_id": 1, "max_line_width": 10, "max_lines": 1, "max_duration_s": ""}
    answer = await client.get(SUBTITLES, params=style)
    assert "General\n\n" in answer.text


async def test_silence_is_a_valid_file(client: httpx.AsyncClient, world: World) -> None:
    await world.completed(replace(TRANSCRIPT, text="", segments=()))
    assert (await client.get(SUBTITLES, params={"task_id": 1, "output_format": "vtt"})).text == "WEBVTT\n\n"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("output_format", "docx", "srt, vtt, ass, lrc, txt, tsv, json"),
        ("max_line_width", "5", "10"),
        ("max_lines", "0", "1"),
        ("max_duration_s", "nan", "finite"),
        ("highlight_words", "loud", "boolean"),
    ],
)
async def test_styles_that_can_not_be(
    client: httpx.AsyncClient, world: World, name: str, value: str, words: str
) -> None:
    await world.completed()
    body = detail(await client.get(SUBTITLES, params={"task_id": 1, name: value}), 422, "invalid_value")
    assert fields(body) == [name]
    assert words in body["message"]


async def test_unknown_names(client: httpx.AsyncClient) -> None:
    body = detail(await client.get(SUBTITLES, params={"task_id": 1, "output_fromat": "srt"}), 422, "unknown_option")
    assert "output_format" in body["message"]


async def test_words_without_times_can_not_be_marked(client: httpx.AsyncClient, world: World) -> None:
    await world.completed(replace(TRANSCRIPT, segments=TRANSCRIPT.segments[1:]))
    answer = await client.get(SUBTITLES, params={"task_id": 1, "highlight_words": "true"})
    assert fields(detail(answer, 422, "invalid_value")) == ["highlight_words"]


async def test_a_task_that_is_not_completed_has_none(client: httpx.AsyncClient, world: World) -> None:
    await world.failed("media_undecodable")
    await world.queued()
    await world.queued()
    await world.store.cancel(3)
    for task_id, status in ((1, "failed"), (2, "queued"), (3, "cancelled")):
        body = detail(await client.get(SUBTITLES, params={"task_id": task_id}), 400, "task_not_finished")
        assert status in body["message"]


async def test_json_has_the_documented_shape(client: httpx.AsyncClient, world: World) -> None:
    await world.completed()
    answer = await client.get(SUBTITLES, params={"task_id": 1, "output_format": "json"})
    assert TranscriptFile.model_validate_json(answer.content).text == TRANSCRIPT.text

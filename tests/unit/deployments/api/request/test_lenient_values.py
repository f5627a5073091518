"""Alternative spellings of values, through every API that accepts them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import httpx
import pytest
from annotated_types import Ge

from deployments.api.openai.audio_form import audio_request, read_fields
from deployments.api.request.lenient_values import choice, is_blank, is_nothing, leaves, listed
from deployments.api.request.task_options import parse_task_request
from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.transcription_options import TaskType, TranscriptionOptions
from pipeline.domain.tasks.task import Priority
from tests.unit.deployments.api.world import World

QUERY = "/api/whisper/tasks/query"


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({"task_type": "TRANSLATE"}, {"task_type": TaskType.TRANSLATE}),
        ({"word_timestamps": " True "}, {"word_timestamps": True}),
        ({"word_timestamps": "on"}, {"word_timestamps": True}),
        ({"word_timestamps": "YES"}, {"word_timestamps": True}),
        ({"vad_filter": " 0"}, {"vad_filter": False}),
        ({"vad_filter": "off"}, {"vad_filter": False}),
        ({"beam_size": " 3 "}, {"beam_size": 3}),
        ({"beam_size": "3.0"}, {"beam_size": 3}),
        ({"temperature": " 0.2 , 0.4 "}, {"temperature": (0.2, 0.4)}),
        ({"temperature": "0.2;0.4"}, {"temperature": (0.2, 0.4)}),
        ({"temperature": "[0.2, 0.4]"}, {"temperature": (0.2, 0.4)}),
        ({"languages": '["en", "de"]'}, {"languages": ("en", "de")}),
        ({"initial_prompt": "None"}, {"initial_prompt": "None"}),  # text is kept literally
        *(
            ({name: nothing}, {})
            for name in (
                "temperature",
                "beam_size",
                "vad_filter",
                "clip_timestamps",
                "no_speech_threshold",
                "task_type",
            )
            for nothing in ("", " ", "null", "None", "undefined")
        ),
        ({"initial_prompt": "  "}, {}),
    ],
)
def test_options_of_a_task(given: dict[str, str], options: dict[str, Any]) -> None:
    assert parse_task_request(given).submission.options == TranscriptionOptions(**options)


def test_what_belongs_to_a_task() -> None:
    given = {
        "priority": " HIGH",
        "engine_name": "Faster-Whisper",
        "callback_url": " http://a.example/b ",
        "model": " base ",
    }
    asked = parse_task_request(given)
    assert (asked.submission.priority, asked.submission.engine_name) == (Priority.HIGH, EngineName.FASTER_WHISPER)
    assert (asked.submission.callback_url, asked.model) == ("http://a.example/b", "base")


@pytest.mark.parametrize(
    ("given", "attribute", "value"),
    [
        ({"response_format": "JSON"}, "response_format", "json"),
        ({"response_format": " Verbose-JSON "}, "response_format", "verbose_json"),
        ({"response_format": "SRT"}, "response_format", "srt"),
        ({"stream": "Yes"}, "stream", True),
        ({"stream": " false "}, "stream", False),
        ({"include": "LogProbs"}, "logprobs", True),
        ({"include": ""}, "logprobs", False),
        ({"model": " whisper-1 "}, "model", "whisper-1"),
        ({"chunking_strategy": " AUTO "}, "stream", False),
        ({"temperature": " ", "priority": "HIGH"}, "stream", False),
        (
            {"response_format": "verbose_json", "timestamp_granularities[]": "Word"},
            "granularities",
            frozenset({"word"}),
        ),
    ],
)
def test_fields_of_openai(given: dict[str, str], attribute: str, value: object) -> None:
    asked = audio_request(read_fields(list(given.items())), TaskType.TRANSCRIBE)
    assert getattr(asked, attribute) == value


@pytest.mark.parametrize(
    "condition",
    [
        {"status": "COMPLETED"},
        {"status": " Completed "},
        {"priority": "Normal"},
        {"engine_name": "faster-whisper"},
        {"task_type": "Transcribe"},
        {"has_result": " TRUE "},
        {"has_error": "no"},
        {"order": "DESC"},
        {"limit": ""},
        {"offset": " "},
        {"order": ""},
        {"include_result": "Yes"},
        {"include_result": None},
    ],
)
async def test_conditions_of_a_query(client: httpx.AsyncClient, world: World, condition: dict[str, Any]) -> None:
    await world.completed()
    assert (await client.post(QUERY, json=condition)).json()["data"]["total_count"] == 1


async def test_a_byte_order_mark_before_json(client: httpx.AsyncClient, world: World) -> None:
    await world.completed()
    found = await client.post(QUERY, content=b'\xef\xbb\xbf {"limit": 1}')
    assert found.json()["params"]["limit"] == 1
    assert (await client.post(QUERY, content=b"\xef\xbb\xbf")).status_code == 200
    echoed = await client.post("/api/whisper/callback/test", content=b'\xef\xbb\xbf{"a": 1}')
    assert echoed.json()["data"]["callback_data"] == {"a": 1}


@pytest.mark.parametrize("name", ["SRT", " srt", ".srt", "Srt "])
async def test_the_format_of_a_subtitle_file(client: httpx.AsyncClient, world: World, name: str) -> None:
    await world.completed()
    answer = await client.get("/api/whisper/generate_subtitles", params={"task_id": " 1 ", "output_format": name})
    assert answer.headers["content-type"] == "text/srt; charset=utf-8"


@pytest.mark.parametrize("wait_s", ["", " ", " 0 "])
async def test_no_time_to_wait(client: httpx.AsyncClient, world: World, wait_s: str) -> None:
    await world.completed()
    answer = await client.get("/api/whisper/tasks/result", params={"task_id": 1, "wait_s": wait_s})
    assert answer.status_code == 200


async def test_a_blank_form_field_leaves_the_query_its_say(client: httpx.AsyncClient) -> None:
    files = {"file": ("a.mp3", b"audio")}
    created = await client.post(
        "/api/whisper/tasks/create", params={"language": "de"}, files=files, data={"language": " "}
    )
    assert created.json()["data"]["language"] == "de"


class Size(StrEnum):
    SMALL = "small"


def test_the_rules_by_themselves() -> None:
    assert [choice(value) for value in (" HIGH ", ".mp3", "a-b c", 5, None)] == ["high", "mp3", "a_b_c", 5, None]
    assert [is_blank(value) for value in (None, " ", "None", 0, False)] == [True, True, False, False, False]
    assert [is_nothing(value) for value in (None, "", " NULL ", "0", 0)] == [True, True, True, False, False]
    assert [listed(value) for value in ("a, b;c", "[1, 2]", "[1", 0.5, ("x",))] == [
        ["a", "b", "c"],
        [1, 2],
        ["[1"],
        [0.5],
        ("x",),
    ]
    assert list(leaves(Annotated[Size | None, Ge(1)])) == [Size, type(None)]
    assert set(leaves(Annotated[tuple[float, ...], Ge(0)])) == {float}

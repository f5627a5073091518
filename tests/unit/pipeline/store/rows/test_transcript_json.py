"""Stored transcripts, read a segment at a time as they are at once."""

from __future__ import annotations

import json

import pytest

from pipeline.store.rows.transcript_json import transcript_values

SEGMENT = {"id": 1, "text": 'He said: "],\\"info\\":{}"', "words": [[0.0, 1.5, "]}", 0.5]], "tokens": []}


@pytest.mark.parametrize(
    "values",
    [
        {"text": "", "segments": [], "info": {}},
        {"text": "a", "segments": [SEGMENT], "info": {"language": "en"}},
        {"text": 'b"],"segments":[', "segments": [SEGMENT, SEGMENT, {}], "info": {"vad_options": {"a": [1, 2]}}},
        {"segments": [], "text": "another order", "info": {}},
        {"text": "more", "segments": [], "info": {}, "newer": 1},
        {"text": "no list", "segments": None, "info": {}},
        {"text": "alone"},
        [],
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_as_at_once(values: object, separators: tuple[str, str]) -> None:
    assert transcript_values(json.dumps(values, separators=separators)) == values


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"text":',
        '{"text":"a","segments":[',
        '{"text":"a","segments":[{}{}],"info":{}}',
        '{"text":"a","segments":[{};{}],"info":{}}',
        '{"text":"a","segments":[{},],"info":{}}',
        '{"text":"a","segments":[{}],"info":{}',
        '{"text":"a","segments":[{}],"info":{}}}',
    ],
)
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        transcript_values(text)

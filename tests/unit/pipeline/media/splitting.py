"""Requests to split a recording, for the tests of the splitter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.ports import SplitRequest


def no_activity() -> NoReturn:
    raise AssertionError("The request needs no voice activity detector.")


def split_request(options: TranscriptionOptions | None = None, **changes: Any) -> SplitRequest:
    request = SplitRequest(1, "t1/source", "t1", options or TranscriptionOptions(), max_chunk_s=15.0)
    return replace(request, **changes)

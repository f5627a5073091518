import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.crawl.extractor_messages import (
    ExtractedPage,
    ExtractFailure,
    ExtractRequest,
    MediaLocation,
    RecordingWritten,
    decode,
    encode,
)
from tests.support.thoroughness import examples

LOCATION = MediaLocation("https://a.example/a.mp4", {"Referer": "https://a.example/"}, "mp4", True, 5, None)
REQUEST = ExtractRequest(
    url="https://a.example/", extractors=("a",), formats="b", proxy="http://u:p@127.0.0.1:1", timeout_s=1.5,
    max_process_bytes=1, scratch="/tmp/a", cookies="secret cookies",
)  # fmt: skip


def test_a_request_is_understood_and_shows_no_secrets() -> None:
    assert ExtractRequest.decode(REQUEST.encode()) == REQUEST
    assert "secret cookies" not in repr(REQUEST)


@pytest.mark.parametrize("message", [ExtractedPage({"id": "1"}, LOCATION), ExtractFailure("A", "b", 403, True, "5")])
def test_messages_are_understood(message: ExtractedPage | ExtractFailure) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert decode(line) == message
    assert isinstance(decode(encode(RecordingWritten())), RecordingWritten)


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"{}", b'{"found": 1}', b'{"found": {"info": []}}', b'{"trouble": []}']
)
def test_what_is_not_a_message_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own or ours
        decode(line)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner))
FIELDS = ("id", "title", "duration", "timestamp", "view_count")


@settings(max_examples=examples(15))
@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_fields_of_other_types_than_they_should_be_are_dropped(info: dict[str, object]) -> None:
    found = decode(json.dumps({"found": {"info": info, "media": {"url": 5, "headers": {"a": 1}}}}).encode())
    assert isinstance(found, ExtractedPage)
    assert found.media == MediaLocation("", {}, "", direct=False)
    assert isinstance(found.text("title"), str | None)
    assert isinstance(found.seconds("duration"), float | None)
    assert isinstance(found.count("view_count"), int | None)
    found.time("timestamp")


def test_texts_are_cut_and_ids_may_be_numbers() -> None:
    found = ExtractedPage({"title": "x" * 5000, "id": 17}, LOCATION)
    assert len(found.text("title") or "") == 2000
    assert found.text("id") == "17"

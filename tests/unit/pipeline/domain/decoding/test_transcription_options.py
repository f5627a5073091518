import json
from dataclasses import fields
from typing import Any, get_type_hints

import pytest
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.decoding.transcription_options import DEFAULT_TEMPERATURES, TaskType, TranscriptionOptions

texts = st.text(max_size=40)
seconds = st.floats(0, 36_000)
probabilities = st.floats(0, 1)

options = st.builds(
    TranscriptionOptions,
    task_type=st.sampled_from(TaskType),
    language=st.none() | st.sampled_from(["en", "de", "zh"]),
    languages=st.lists(st.sampled_from(["en", "de", "zh"]), unique=True).map(tuple),
    multilingual=st.booleans(),
    beam_size=st.integers(1, 20),
    best_of=st.integers(1, 20),
    temperature=st.lists(st.floats(0, 2), min_size=1, max_size=10).map(tuple),
    compression_ratio_threshold=st.none() | st.floats(0, 10),
    log_prob_threshold=st.none() | st.floats(-10, 0),
    no_speech_threshold=st.none() | probabilities,
    condition_on_previous_text=st.booleans(),
    initial_prompt=st.none() | texts,
    hotwords=st.none() | texts,
    word_timestamps=st.booleans(),
    prepend_punctuations=texts,
    append_punctuations=texts,
    clip_timestamps=st.lists(seconds).map(tuple),
    hallucination_silence_threshold=st.none() | seconds,
    vad_filter=st.booleans(),
)


@given(options)
def test_plain_data_survives_json(chosen: TranscriptionOptions) -> None:
    assert json.loads(json.dumps(chosen.as_dict())) == chosen.as_dict()


def test_plain_data_is_plain() -> None:
    data = TranscriptionOptions(language="de").as_dict()

    assert data["task_type"] == "transcribe"
    assert data["temperature"] == list(DEFAULT_TEMPERATURES)
    assert list(data) == [field.name for field in fields(TranscriptionOptions)]


@pytest.mark.parametrize(
    ("vad_filter", "clip_timestamps", "expected"),
    [(True, (), True), (True, (0.0,), True), (False, (), False), (False, (1.0, 2.0), False)],
)
def test_clips_named_by_the_client_replace_vad(
    vad_filter: bool, clip_timestamps: tuple[float, ...], expected: bool
) -> None:
    chosen = TranscriptionOptions(vad_filter=vad_filter, clip_timestamps=clip_timestamps)

    assert chosen.uses_vad is expected


def test_what_is_asked_of_vad_is_told_in_its_own_terms() -> None:
    assert TranscriptionOptions().vad_options == {}
    tuned = TranscriptionOptions(vad_threshold=0.7, vad_min_silence_duration_ms=900, vad_speech_pad_ms=0)
    assert tuned.vad_options == {"threshold": 0.7, "min_silence_duration_ms": 900, "speech_pad_ms": 0}


def test_the_defaults_keep_their_own_limits() -> None:
    hints = get_type_hints(TranscriptionOptions, include_extras=True)
    defaults = TranscriptionOptions()
    checked = 0

    for name, hint in hints.items():
        value = getattr(defaults, name)
        for limit in limits(hint):
            checked += value is not None
            assert value is None or keeps(value, limit), name
    assert checked >= 8


def limits(hint: Any) -> list[Any]:
    """Return the ``annotated_types`` limits of an option, also of one that may be empty."""
    own = list(getattr(hint, "__metadata__", ()))
    parts = getattr(hint, "__args__", ()) if not own and getattr(hint, "__origin__", None) is not tuple else ()
    return own + [limit for part in parts for limit in limits(part)]


def keeps(value: Any, limit: Any) -> bool:
    match limit:
        case Ge():
            return bool(value >= limit.ge)
        case Le():
            return bool(value <= limit.le)
        case Gt():
            return bool(value > limit.gt)
        case Lt():
            return bool(value < limit.lt)
        case MinLen():
            return len(value) >= limit.min_length
        case MaxLen():
            return len(value) <= limit.max_length
        case _:
            raise AssertionError(f"a limit this test does not know: {limit}")

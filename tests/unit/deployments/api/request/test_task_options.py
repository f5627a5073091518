from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.api.request.task_options import TASK_FORM, check_engine, parse_task_request, public_model_name
from pipeline.domain.decoding.languages import LANGUAGES
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.summaries.summary import SummaryOptions
from pipeline.domain.tasks.submission import Submission
from pipeline.domain.tasks.task import Priority
from pipeline.errors import EngineUnavailable, InvalidValue, ServiceStarting, UnknownOption
from tests.unit.deployments.api.world import ENGINE


def test_nothing_given_is_the_defaults() -> None:
    asked = parse_task_request({})
    assert (asked.submission, asked.model) == (Submission(), None)


def test_text_as_forms_have_it() -> None:
    asked = parse_task_request(
        {"beam_size": "3", "temperature": "0.2, 0.4", "vad_filter": "False", "priority": "low", "language": ""}
    )
    assert asked.submission.options == TranscriptionOptions(beam_size=3, temperature=(0.2, 0.4), vad_filter=False)
    assert asked.submission.priority is Priority.LOW


def test_values_as_python_has_them() -> None:
    options = {"temperature": 0, "languages": ["en", "de", "en"], "clip_timestamps": (1.5, 3), "language": None}
    asked = parse_task_request(options)
    expected = TranscriptionOptions(temperature=(0.0,), languages=("en", "de"), clip_timestamps=(1.5, 3.0))
    assert asked.submission.options == expected


@pytest.mark.parametrize(
    ("text", "clips"),
    [
        ("0", ()),
        ("0.0", ()),
        ("", ()),
        ("1,2,5", (1.0, 2.0, 5.0)),
        ("0,2.5,2.5,12.8", (0.0, 2.5, 2.5, 12.8)),
        ("5,6,1,2", (5.0, 6.0, 1.0, 2.0)),
    ],
)
def test_clips(text: str, clips: tuple[float, ...]) -> None:
    assert parse_task_request({"clip_timestamps": text}).submission.options.clip_timestamps == clips


def test_each_whisper_language_is_one() -> None:
    for code in LANGUAGES:
        assert parse_task_request({"language": code}).submission.options.language == code


def test_a_language_by_its_tag_or_name_in_every_option_that_takes_one() -> None:
    given = {"language": "nb", "languages": "pt-BR, English,auto", "summarize": "true", "summary_language": "Deutsch"}
    submission = parse_task_request(given).submission
    assert (submission.options.language, submission.options.languages) == ("no", ("pt", "en"))
    assert submission.summary_options == SummaryOptions(summary_language="de")
    detected = parse_task_request(
        {"language": "auto", "languages": "auto", "summarize": "1", "summary_language": "auto"}
    )
    assert (detected.submission.options, detected.submission.summary_options) == (
        TranscriptionOptions(),
        SummaryOptions(),
    )


@pytest.mark.parametrize(("given", "track"), [("1", "1"), (1, "1"), (0, "0"), ("eng", "eng"), ("", None), (None, None)])
def test_an_audio_track_is_an_index_or_a_language(given: object, track: str | None) -> None:
    options = parse_task_request({"audio_track": given}).submission.options
    assert options.sound.audio_track == track


def test_the_level_is_normalized_unless_it_is_switched_off() -> None:
    assert parse_task_request({}).submission.options.sound.normalize_level
    assert not parse_task_request({"normalize_level": "false"}).submission.options.sound.normalize_level


def test_every_option_can_be_given_by_name() -> None:
    assert set(TranscriptionOptions.__dataclass_fields__) < set(TASK_FORM.names)


def test_errors_name_the_field_for_callers_without_http() -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_task_request({"beam_size": 0, "best_of": 0})
    assert [field for field, _ in caught.value.problems] == ["beam_size", "best_of"]
    with pytest.raises(UnknownOption, match=r"did you mean word_timestamps\?"):
        parse_task_request({"word_timestamp": True})


def test_a_model_in_a_folder_is_known_by_its_last_name() -> None:
    engine = replace(ENGINE, model="/srv/models/ours")
    assert public_model_name(engine.model) == "ours"
    assert public_model_name("Systran/faster-whisper-base") == "Systran/faster-whisper-base"
    for name in ("ours", "/srv/models/ours"):
        check_engine(parse_task_request({"model": name}), engine, None)
    with pytest.raises(EngineUnavailable) as caught:
        check_engine(parse_task_request({"model": "base"}), engine, None)
    assert "/srv" not in caught.value.message


def test_before_a_model_is_loaded_only_the_configured_one_is_promised() -> None:
    check_engine(parse_task_request({"model": "base"}), None, "base")
    with pytest.raises(ServiceStarting):
        check_engine(parse_task_request({"model": "base"}), None, None)


def test_a_long_list_of_languages_is_not_recited() -> None:
    engine = replace(ENGINE, languages=tuple(set(LANGUAGES) - {"yue"}))
    with pytest.raises(InvalidValue, match=r"does not know Cantonese\.$"):
        check_engine(parse_task_request({"language": "yue"}), engine, None)

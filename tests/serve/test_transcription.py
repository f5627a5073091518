"""The main job on real speech, as a client sees it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pysubs2
import pytest
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from tests.serve.service import Service
from tests.support import speech

words = EnglishTextNormalizer()
characters = BasicTextNormalizer(split_letters=True)


def encoded(joined: speech.Joined, folder: Path, suffix: str) -> bytes:
    return speech.encode(joined.audio, folder / f"speech.{suffix}").read_bytes()


FOX = ("en", "quick_brown_fox")
SURE_LANGUAGES = [
    FOX,
    ("es", "conteo"),
    ("fr", "comptage"),
    ("it", "conteggio"),
    ("ja", "kazoeru"),
    ("zh", "jishu"),
    ("pt", "contagem"),
]


@pytest.mark.parametrize(("lang", "name"), SURE_LANGUAGES)
def test_speech_is_heard_in_its_own_language(service: Service, lang: str, name: str) -> None:
    heard = service.transcribe(speech.sample(lang, name).path.read_bytes())
    assert heard["language"] == lang
    assert heard["result"]["info"]["language"] == lang
    assert heard["result"]["text"]
    assert heard["status"] == "completed"
    assert heard["progress"] == 1.0


@pytest.mark.parametrize("suffix", speech.FORMATS)
def test_every_common_format_is_heard_alike(service: Service, tmp_path: Path, suffix: str) -> None:
    joined = speech.join([speech.sample(*FOX)], [0.0])
    heard = service.transcribe(encoded(joined, tmp_path, suffix), f"fox.{suffix}", language="en")
    assert words(heard["result"]["text"]) == words(joined.text)
    assert heard["file_duration"] == pytest.approx(joined.duration_s, abs=0.1)
    assert heard["truncated"] is False


def test_times_lie_where_the_speech_is(service: Service, tmp_path: Path) -> None:
    placed = [speech.sample("en", name) for name in ("quick_brown_fox", "counting", "quick_brown_fox", "counting")]
    joined = speech.join(placed, [1.0, 4.0, 6.0, 21.0])
    heard = service.transcribe(encoded(joined, tmp_path, "m4a"), language="en", word_timestamps="true")
    spoken = [word for segment in heard["result"]["segments"] for word in segment["words"]]
    for placement in joined.placements:
        inside = [word for word in spoken if placement.start_s - 0.5 <= word["start"] < placement.end_s]
        assert inside[0]["start"] == pytest.approx(placement.start_s, abs=0.3)
        assert inside[-1]["end"] == pytest.approx(placement.end_s, abs=0.3)
    assert all(0 <= word["start"] <= word["end"] <= joined.duration_s for word in spoken)


def test_segments_and_cues_lie_where_the_speech_is(service: Service, tmp_path: Path) -> None:
    """Also where the client asks for no words, and on both surfaces."""
    placed = [speech.sample("en", name) for name in ("hello_world", "counting", "quick_brown_fox")]
    joined = speech.join(placed, [0.5, 10.0, 8.0])
    media = encoded(joined, tmp_path, "flac")
    record = service.transcribe(media, "pauses.flac", language="en")
    segments = [(segment["start"], segment["end"]) for segment in record["result"]["segments"]]
    subtitles = [
        service.client.get("/api/whisper/generate_subtitles", params={"task_id": record["id"], "output_format": name})
        for name in ("srt", "vtt")
    ]
    subtitles.append(
        service.client.post(
            "/v1/audio/transcriptions",
            files={"file": ("pauses.flac", media)},
            data={"response_format": "srt", "language": "en"},
        )
    )
    cues = [[(cue.start / 1000, cue.end / 1000) for cue in pysubs2.SSAFile.from_string(one.text)] for one in subtitles]
    for spans in (segments, *cues):
        assert len(spans) == len(joined.placements)
        for (start, end), placement in zip(spans, joined.placements, strict=True):
            assert start == pytest.approx(placement.start_s, abs=0.3)
            assert end == pytest.approx(placement.end_s, abs=0.5)


@pytest.mark.parametrize("output_format", ["srt", "vtt"])
def test_subtitles_are_read_by_a_player(service: Service, tmp_path: Path, output_format: str) -> None:
    joined = speech.join([speech.sample("en", "counting"), speech.sample(*FOX)], [0.5, 3.0])
    heard = service.transcribe(encoded(joined, tmp_path, "ogg"), language="en")
    answer = service.client.get(
        "/api/whisper/generate_subtitles", params={"task_id": heard["id"], "output_format": output_format}
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(f"text/{output_format}")
    cues = pysubs2.SSAFile.from_string(answer.text, format_=output_format)
    assert "lazy dog" in " ".join(cue.plaintext for cue in cues).lower().replace("\n", " ")
    assert all(0 <= cue.start < cue.end <= joined.duration_s * 1000 + 1 for cue in cues)


def test_translation_gives_english(service: Service) -> None:
    heard = service.transcribe(speech.sample("pt", "ola_mundo").path.read_bytes(), language="pt", task_type="translate")
    assert words(heard["result"]["text"]) == "hello world"


def test_only_the_clips_asked_for_are_heard(service: Service, tmp_path: Path) -> None:
    joined = speech.join([speech.sample("en", "counting"), speech.sample(*FOX)], [0.0, 2.0])
    fox = joined.placements[1]
    heard = service.transcribe(
        encoded(joined, tmp_path, "wav"), language="en", clip_timestamps=f"{fox.start_s - 0.3},{fox.end_s + 0.3}"
    )
    assert words(heard["result"]["text"]) == words(fox.text)
    assert heard["result"]["segments"][0]["start"] >= fox.start_s - 0.5


def test_text_that_went_before_is_a_prompt_where_it_is_asked_for(service: Service, tmp_path: Path) -> None:
    joined = speech.join([speech.sample("en", "counting"), speech.sample(*FOX)] * 4, [1.0] * 8)
    heard = service.transcribe(encoded(joined, tmp_path, "flac"), language="en", condition_on_previous_text="true")
    assert heard["result"]["text"].lower().count("lazy dog") == 4


def test_a_mixed_recording_is_heard_in_each_of_its_languages_on_request(service: Service, tmp_path: Path) -> None:
    placed = [speech.sample(*FOX)] * 5 + [speech.sample("fr", "bonjour_monde")] * 6
    heard = service.transcribe(encoded(speech.join(placed, [0.6] * 11), tmp_path, "wav"), multilingual="true")
    text = heard["result"]["text"].lower()
    assert "lazy dog" in text
    assert "bonjour" in text


def speech_wav(audio: np.ndarray, folder: Path) -> bytes:
    return speech.encode(audio.astype(np.float32), folder / "sound.wav").read_bytes()


@pytest.mark.parametrize(
    "audio",
    [
        pytest.param(np.zeros(800), id="a clip of 50 ms"),
        pytest.param(np.zeros(16_000 * 5), id="silence"),
        pytest.param(np.random.default_rng(1).normal(0, 0.1, 1600), id="100 ms of noise"),
    ],
)
def test_what_holds_no_speech_is_completed_with_an_empty_transcript(
    service: Service, tmp_path: Path, audio: np.ndarray
) -> None:
    heard = service.transcribe(speech_wav(audio, tmp_path))
    assert heard["result"]["text"] == ""
    assert heard["result"]["segments"] == []
    subtitles = service.client.get("/api/whisper/generate_subtitles", params={"task_id": heard["id"]})
    assert (subtitles.status_code, subtitles.text) == (200, "")


def test_a_recording_that_breaks_off_is_heard_as_far_as_it_goes(service: Service, tmp_path: Path) -> None:
    joined = speech.join([speech.sample(*FOX), speech.sample("en", "counting")] * 3, [0.5] * 6)
    whole = encoded(joined, tmp_path, "flac")
    heard = service.transcribe(whole[: len(whole) // 2], language="en")
    assert heard["truncated"] is True
    assert "fox" in heard["result"]["text"].lower()


def test_nothing_of_a_finished_task_is_left_in_the_media_store(
    service: Service, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    before = set(service.media_files())  # unfinished uploads of other tests
    service.transcribe(speech.sample(*FOX).path.read_bytes())
    eventually(lambda: set(service.media_files()) <= before)


def test_many_clips_in_many_languages_at_once(service: Service, corpus: tuple[speech.Sample, ...]) -> None:
    corpus = tuple(item for item in corpus if item.lang not in ("hi", "pl"))  # base hardly knows them
    created = [service.create(item.path.read_bytes(), language=item.lang) for item in corpus]
    heard = [service.end_of(record["id"]).json()["data"] for record in created]
    assert {record["status"] for record in heard} == {"completed"}
    assert [record["language"] for record in heard] == [item.lang for item in corpus]
    assert sum(bool(record["result"]["text"]) for record in heard) >= len(corpus) - 1


def test_the_log_of_the_service_is_not_the_clients_concern(service: Service) -> None:
    answer = service.client.get("/api/health/ready")
    assert answer.json()["engine"]["model"] == "base"
    assert "/" not in answer.json()["engine"]["model"]


def test_the_handle_serves_python_callers(service: Service) -> None:
    from ray import serve

    handle = serve.get_app_handle("murmuration")
    audio = io.BytesIO(speech.sample(*FOX).path.read_bytes()).getvalue()
    task = handle.transcribe.remote(audio, file_name="fox.wav", language="en", priority="high").result(timeout_s=60)
    assert "fox" in task.result.text
    queued = handle.submit.remote(audio, language="en").result(timeout_s=60)
    assert handle.result.remote(queued.id, wait_s=30).result(timeout_s=60).status == "completed"

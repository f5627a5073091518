from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.domain.audio.spans import SAMPLE_RATE
from tests.support import speech


def test_the_corpus_speaks_nine_languages(corpus: tuple[speech.Sample, ...]) -> None:
    assert len(corpus) == 27
    assert {sample.lang for sample in corpus} == {"en", "es", "fr", "hi", "it", "ja", "pl", "pt", "zh"}
    assert all(sample.text and 0.9 < sample.duration_s < 5 for sample in corpus)


def test_a_placement_is_where_its_sample_is_heard(corpus: tuple[speech.Sample, ...]) -> None:
    joined = speech.join(corpus[:3], [0.5, 1.0, 2.0])

    assert joined.duration_s == pytest.approx(3.5 + sum(sample.duration_s for sample in corpus[:3]))
    for placement, sample in zip(joined.placements, corpus, strict=False):
        heard = joined.audio[round(placement.start_s * SAMPLE_RATE) : round(placement.end_s * SAMPLE_RATE)]
        assert min(abs(heard[0]), abs(heard[-1])) > speech.AUDIBLE
        assert placement.text == sample.text
    between = joined.audio[
        round(joined.placements[0].end_s * SAMPLE_RATE) : round(joined.placements[1].start_s * SAMPLE_RATE)
    ]
    assert np.abs(between).max() <= speech.AUDIBLE


def test_a_recording_is_as_long_as_asked_and_the_same_every_time(corpus: tuple[speech.Sample, ...]) -> None:
    first, again, other = (speech.recording(corpus, 30.0, seed) for seed in (1, 1, 2))

    assert 22.0 < first.duration_s <= 30.0
    assert np.array_equal(first.audio, again.audio)
    assert first.text != other.text


@pytest.mark.parametrize("suffix", speech.FORMATS)
def test_an_encoded_recording_sounds_like_its_source(
    suffix: str, tmp_path: Path, corpus: tuple[speech.Sample, ...]
) -> None:
    joined = speech.join(corpus[:2], [0.0, 0.5])

    first = speech.encode(joined.audio, tmp_path / f"first.{suffix}")
    again = speech.encode(joined.audio, tmp_path / f"again.{suffix}")

    heard = speech.load(first)
    assert len(heard) == pytest.approx(len(joined.audio), abs=0.05 * SAMPLE_RATE)
    overlap = min(len(heard), len(joined.audio))
    assert np.corrcoef(heard[:overlap], joined.audio[:overlap])[0, 1] > 0.9
    assert first.read_bytes() == again.read_bytes()

"""One 11 s clip on an idle service, beside faster-whisper in this process; and how long a create takes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from pipeline.domain.audio.spans import SAMPLE_RATE
from tests.benchmarks.arguments import contenders, parser
from tests.benchmarks.client import Record, ServiceClient
from tests.benchmarks.reports import median_s, report, times
from tests.benchmarks.rivals import Heard
from tests.benchmarks.timing import Runs
from tests.support import speech
from tests.support.tables import percentile

CLIP_S = 11.0
UPLOAD_BYTES = 1_000_000


def main() -> None:
    arguments = parser(__doc__)
    arguments.set_defaults(rounds=15)
    arguments.add_argument("--language", default="en", help="of the clip; given to both sides")
    chosen = arguments.parse_args()
    sides = contenders(chosen)
    with tempfile.TemporaryDirectory() as folder:
        short = clip(Path(folder), chosen.language)
        ours, calls, theirs = Runs[Record](), Runs[str](), Runs[Heard]()
        for _ in range(chosen.rounds):
            ours.measure(lambda: sides.service.transcribe(short, language=chosen.language))
            sides.service.clean_up()
            calls.measure(lambda: sides.service.openai_text(short, language=chosen.language))
            theirs.measure(lambda: sides.rival.plain(short, chosen.language))
        creates = create_seconds(sides.service, upload(Path(folder)), chosen.rounds)
    ways = {
        "service, `tasks/create` and `result`": ours.seconds,
        "service, `/v1/audio/transcriptions`": calls.seconds,
        "`WhisperModel.transcribe`": theirs.seconds,
    }
    rows = [
        [how, median_s(seconds), f"{percentile(seconds, 95):.2f} s", times(theirs.seconds, seconds)]
        for how, seconds in ways.items()
    ]
    report(f"One {CLIP_S:.0f} s clip, idle service", ["how", "median (range)", "p95", "of faster-whisper's"], rows)
    milliseconds = [1000.0 * value for value in creates]
    row = [f"{percentile(milliseconds, percent):.1f} ms" for percent in (50, 95)]
    report("`tasks/create` with 1 MB, idle service", ["median", "p95"], [row])


def clip(folder: Path, language: str) -> Path:
    """Speech that, with silence at its end, lasts exactly ``CLIP_S``."""
    joined = speech.recording(speech.of_language(language), CLIP_S, seed=11, pause_s=(0.3, 0.6))
    silence = round(CLIP_S * SAMPLE_RATE) - len(joined.audio)
    return speech.encode(np.pad(joined.audio, (0, silence)), folder / "clip.wav")


def upload(folder: Path) -> Path:
    """Make a recording of ``UPLOAD_BYTES`` bytes, give or take a header."""
    duration_s = UPLOAD_BYTES / (2 * SAMPLE_RATE)
    joined = speech.recording(speech.of_language("en"), duration_s, seed=1)
    silence = round(duration_s * SAMPLE_RATE) - len(joined.audio)
    return speech.encode(np.pad(joined.audio, (0, silence)), folder / "upload.wav")


def create_seconds(service: ServiceClient, path: Path, rounds: int) -> list[float]:
    """Return the seconds of each create; the service is idle again before the next."""
    creates = Runs[int]()
    for _ in range(rounds):
        task = creates.measure(lambda: service.create(path, language="en"))
        service.completed(task)
        service.clean_up()
    return creates.seconds


if __name__ == "__main__":
    main()

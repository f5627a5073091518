"""The engine and its batcher in this process, against faster-whisper on the same cores, alternating.

Every clip of the corpus is submitted at once; the rivals take one after another, the ways their users run them. With
``--ablate``, ours is measured again without each of its parts.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from pipeline.asr.batcher import MicroBatcher
from pipeline.asr.engine import DecodeItem
from pipeline.asr.faster_whisper.whisper_engine import FasterWhisperEngine
from pipeline.asr.model_files import resolve
from pipeline.domain.decoding.repetition import has_repetition_loop
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.settings import BatchSettings
from tests.benchmarks.reports import median_s, report, times
from tests.benchmarks.rivals import load_rival
from tests.support import speech
from tests.support.accuracy import ErrorCount, errors_by_language

Run = Callable[[Sequence[speech.Sample]], list[str]]


@dataclass
class Contender:
    """A way to transcribe the corpus, with the seconds of each round and the texts of the last one."""

    name: str
    run: Run
    seconds: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def measure(self, samples: Sequence[speech.Sample]) -> None:
        started = time.perf_counter()
        self.texts = self.run(samples)
        self.seconds.append(time.perf_counter() - started)

    def row(self, samples: Sequence[speech.Sample], plain: Contender) -> list[str]:
        heard = zip(samples, self.texts, strict=True)
        errors = errors_by_language((sample.lang, sample.text, text) for sample, text in heard)
        total = sum(errors.values(), ErrorCount())
        by_language = ", ".join(f"{lang} {count.percent:.0f}" for lang, count in errors.items())
        return [
            self.name,
            median_s(self.seconds),
            times(self.seconds, plain.seconds),
            f"{total.percent:.1f}",
            str(sum(map(has_repetition_loop, self.texts))),
            by_language,
        ]


def ours(
    engine: FasterWhisperEngine, settings: BatchSettings, detect: bool, samples: Sequence[speech.Sample]
) -> list[str]:
    """Transcribe all at once, from the recordings in memory to the texts."""
    batcher = MicroBatcher(engine, settings).start()
    options = TranscriptionOptions()
    items = [
        DecodeItem(
            features=engine.prepare(speech.load(sample.path)),
            options=options,
            language=None if detect else sample.lang,
        )
        for sample in samples
    ]
    outcomes = [chunk.future.result() for chunk in batcher.submit(items, rank=1, start_tag=0.0)]
    print(batcher.stats(), flush=True)
    batcher.close()
    return [" ".join(segment.text.strip() for segment in outcome.segments) for outcome in outcomes]


def contenders(arguments: argparse.Namespace) -> list[Contender]:
    rival = load_rival(arguments.model, arguments.compute_type, arguments.threads)
    load = partial(
        FasterWhisperEngine,
        resolve(arguments.model),
        device="cpu",
        compute_type=arguments.compute_type,
        cpu_threads=arguments.threads,
    )
    short, settings, detect = (
        load(short_windows=True),
        BatchSettings(max_batch_size=arguments.batch_size),
        arguments.detect,
    )

    def language(sample: speech.Sample) -> str | None:
        return None if detect else sample.lang

    found = [
        Contender("plain", lambda samples: [rival.plain(one.path, language(one)).text for one in samples]),
        Contender("batched pipeline", lambda samples: [rival.batched(one.path, language(one)).text for one in samples]),
        Contender("ours", partial(ours, short, settings, detect)),
    ]
    if arguments.ablate:
        found += [
            Contender(
                "ours, batches of 1", partial(ours, short, settings.model_copy(update={"max_batch_size": 1}), detect)
            ),
            Contender("ours, full windows", partial(ours, load(short_windows=False), settings, detect)),
            Contender(
                "ours, no gate", partial(ours, short, settings.model_copy(update={"quality_gate": False}), detect)
            ),
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--compute-type", default="int8")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3, help="each round measures every contender once")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--clips", type=int, default=None, help="only the first so many clips")
    parser.add_argument("--detect", action="store_true", help="let every side detect the language")
    parser.add_argument("--ablate", action="store_true", help="also measure ours without each of its parts")
    arguments = parser.parse_args()
    samples = speech.corpus()[: arguments.clips]
    found = contenders(arguments)
    for _ in range(arguments.rounds):
        for contender in found:
            contender.measure(samples)
    audio_s = sum(sample.duration_s for sample in samples)
    report(
        f"Engine, {len(samples)} clips, {audio_s:.0f} s of audio, {arguments.model} {arguments.compute_type}",
        ("", "median of rounds", "× plain", "error rate %", "texts that loop", "by language %"),
        [contender.row(samples, found[0]) for contender in found],
    )


if __name__ == "__main__":
    main()

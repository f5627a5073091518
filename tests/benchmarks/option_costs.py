"""The cost of each option of a transcription on the real engine, beside the defaults: the source of ``decoding_cost``.

A step is one call of the engine for a batch; every round measures the defaults and each step once, so that a busy
machine slows all alike. A whole chunk is what the batcher makes of it: with ``log_prob_threshold=0`` every decoding
fails, and the ladder of temperatures is climbed to its end.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from pipeline.asr.batcher import MicroBatcher
from pipeline.asr.engine import Decoded, DecodeItem
from pipeline.asr.faster_whisper.whisper_engine import FasterWhisperEngine
from pipeline.asr.model_files import resolve
from pipeline.domain.decoding.decoding_cost import relative_cost
from pipeline.domain.decoding.quality_gate import PROMPT_TOKENS
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.settings import BatchSettings
from tests.benchmarks.reports import report
from tests.support import speech

DEFAULTS = TranscriptionOptions(language="en")
SAMPLED_AT = 0.4
SEARCHES = (1, 2, 5, 10, 20)
LONGEST_LADDER = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
THRESHOLDS = {
    "log_prob_threshold": (-1.0, -0.7, -0.5, -0.3, -0.2, -0.1, 0.0),
    "compression_ratio_threshold": (2.4, 2.0, 1.8, 1.6, 1.4, 1.2, 1.0, 0.0),
}
CHUNKS = {
    "defaults": DEFAULTS,
    "word_timestamps": replace(DEFAULTS, word_timestamps=True),
    "beam_size=1": replace(DEFAULTS, beam_size=1),
    "beam_size=20": replace(DEFAULTS, beam_size=20),
    "default ladder, climbed": replace(DEFAULTS, log_prob_threshold=0.0),
    "best_of=20, climbed": replace(DEFAULTS, log_prob_threshold=0.0, best_of=20),
    "beam_size=20 best_of=20, climbed": replace(DEFAULTS, log_prob_threshold=0.0, beam_size=20, best_of=20),
    "beam_size=20 best_of=20 and ten temperatures, climbed": replace(
        DEFAULTS, log_prob_threshold=0.0, beam_size=20, best_of=20, temperature=LONGEST_LADDER
    ),
}


@dataclass
class Step:
    """Items that are decoded together, or each alone, and the seconds of a chunk in each round."""

    name: str
    items: Sequence[DecodeItem]
    alone: bool = False
    seconds: list[float] = field(default_factory=list)

    def measure(self, engine: FasterWhisperEngine) -> None:
        started = time.perf_counter()
        for batch in [[item] for item in self.items] if self.alone else [self.items]:
            engine.decode(batch)
        self.seconds.append((time.perf_counter() - started) / len(self.items))


def items(engine: FasterWhisperEngine, count: int, duration_s: float) -> list[DecodeItem]:
    """Make chunks of English speech, all different."""
    samples = speech.of_language("en")
    made = (speech.recording(samples, duration_s, seed, (0.2, 0.6)) for seed in range(count))
    return [DecodeItem(features=engine.prepare(one.audio), options=DEFAULTS, language="en") for one in made]


def steps(engine: FasterWhisperEngine, plain: Sequence[DecodeItem]) -> list[Step]:
    """Return a step for each way to decode the chunks once."""
    first = [one for one in engine.decode(plain) if isinstance(one, Decoded)]
    encoded = [replace(item, encoding=one.encoding) for item, one in zip(plain, first, strict=True)]

    def chosen(some: Sequence[DecodeItem], **options: Any) -> list[DecodeItem]:
        return [replace(one, options=replace(one.options, **options)) for one in some]

    def sampled(best_of: int) -> list[DecodeItem]:
        return [replace(one, temperature=SAMPLED_AT) for one in chosen(encoded, best_of=best_of)]

    text = [token for one in first for segment in one.segments for token in segment.tokens]
    prompted = [replace(one, previous_tokens=tuple((text * 8)[-PROMPT_TOKENS:])) for one in plain]
    return [
        Step("defaults", plain),
        *(Step(f"beam_size={beams}", chosen(plain, beam_size=beams)) for beams in SEARCHES),
        *(Step(f"a temperature above 0, best_of={number}", sampled(number)) for number in SEARCHES),
        Step("full window", [replace(one, full_window=True) for one in plain]),
        Step("a full prompt", prompted),
        Step("word_timestamps", chosen(plain, word_timestamps=True)),
        Step("alone in its batch", plain, alone=True),
        Step("alone, with a full prompt (condition_on_previous_text)", prompted, alone=True),
    ]


def chunk_seconds(engine: FasterWhisperEngine, some: Sequence[DecodeItem], options: TranscriptionOptions) -> float:
    """Return the seconds that the engine works on a chunk, from its first decoding to its outcome."""
    batcher = MicroBatcher(engine, BatchSettings(max_batch_size=len(some), max_batch_s=1000.0)).start()
    for chunk in batcher.submit([replace(item, options=options) for item in some], rank=1, start_tag=0.0):
        chunk.future.result()
    batcher.close()
    return batcher.stats().busy_s / len(some)


def failing(decoded: Sequence[Decoded], threshold: str, value: float) -> float:
    """Share of decodings that do not pass a threshold."""
    if threshold == "log_prob_threshold":
        return sum(one.avg_logprob < value for one in decoded) / len(decoded)
    return sum(one.compression_ratio > value for one in decoded) / len(decoded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--compute-type", default="int8")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chunk-s", type=float, default=10.0, help="seconds of each chunk, at most")
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    engine = FasterWhisperEngine(
        resolve(arguments.model),
        device="cpu",
        compute_type=arguments.compute_type,
        cpu_threads=arguments.threads,
        short_windows=True,
    )
    plain = items(engine, arguments.batch_size, arguments.chunk_s)
    subject = f"{arguments.model} {arguments.compute_type}, {arguments.batch_size} chunks of {arguments.chunk_s:.0f} s"
    measured = steps(engine, plain)
    for _ in range(arguments.rounds):
        for step in measured:
            step.measure(engine)
    unit_s = median(measured[0].seconds)
    rows = [
        [one.name, f"{1000 * median(one.seconds):.0f} ms", f"{median(one.seconds) / unit_s:.2f}"] for one in measured
    ]
    report(f"One decoding of a chunk, {subject}", ("", "a chunk", "× defaults"), rows)
    whole = [(name, chunk_seconds(engine, plain, options), relative_cost(options)) for name, options in CHUNKS.items()]
    rows = [[name, f"{s:.2f} s", f"{s / whole[0][1]:.1f}", f"{cost:.1f}"] for name, s, cost in whole]
    report(f"A whole chunk, {subject}", ("", "a chunk", "× defaults", "predicted"), rows)
    clips = [
        DecodeItem(features=engine.prepare(speech.load(one.path)), options=DEFAULTS, language=one.lang)
        for one in speech.corpus()
    ]
    decoded = [one for clip in [*plain, *clips] for one in engine.decode([clip]) if isinstance(one, Decoded)]
    rows = [
        [f"{name} = {value}", f"{failing(decoded, name, value):.0%}"]
        for name, values in THRESHOLDS.items()
        for value in values
    ]
    report(f"Decodings that fail a threshold, of {len(decoded)}", ("", "fail"), rows)


if __name__ == "__main__":
    main()

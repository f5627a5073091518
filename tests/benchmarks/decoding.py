"""The cost of a decoder in a process of its own, beside one in this process."""

from __future__ import annotations

import argparse
import io
import time
from functools import partial

from pipeline.media.audio_decoder import AudioDecoder
from pipeline.media.sandbox.sandbox import Sandbox, SandboxLimits
from pipeline.media.sandbox.sandboxed_decoder import SandboxedDecoder
from tests.benchmarks.reports import median_s, report, times
from tests.benchmarks.timing import Runs
from tests.support.recordings import encode, tone

MAX_DURATION_S = 36_000.0


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=20)
    rounds = arguments.parse_args().rounds
    sandbox = Sandbox(SandboxLimits())
    started = time.perf_counter()
    run(SandboxedDecoder(sandbox, io.BytesIO(encode(tone(0.1), "wav")), MAX_DURATION_S))
    started = time.perf_counter() - started
    rows = []
    for name, content in recordings().items():
        here, there = Runs[int](), Runs[int]()
        for _ in range(rounds):
            here.measure(partial(decode_here, content))
            there.measure(partial(decode_there, sandbox, content))
        rows.append([name, median_s(here.seconds, 3), median_s(there.seconds, 3), times(here.seconds, there.seconds)])
    sandbox.close()
    report("Decoding", ["recording", "in this process", "in a child", "ratio"], rows)
    print(f"\nStart of the process they are forked from, with the first recording: {started:.2f} s")


def recordings() -> dict[str, bytes]:
    return {
        "1 s mp3": encode(tone(1.0), "mp3"),
        "11 s mp3": encode(tone(11.0), "mp3"),
        "10 min m4a": encode(tone(600.0), "m4a"),
    }


def decode_here(content: bytes) -> int:
    return run(AudioDecoder(io.BytesIO(content), MAX_DURATION_S))


def decode_there(sandbox: Sandbox, content: bytes) -> int:
    return run(SandboxedDecoder(sandbox, io.BytesIO(content), MAX_DURATION_S))


def run(decoder: AudioDecoder | SandboxedDecoder) -> int:
    return sum(map(len, decoder.blocks()))


if __name__ == "__main__":
    main()

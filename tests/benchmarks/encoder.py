"""The encoder alone: windows one by one and in batches. On a CPU, together is slower than one after another."""

from __future__ import annotations

import argparse
import os
from functools import partial

import numpy as np
from faster_whisper import WhisperModel

from pipeline.asr.engine import FRAMES_PER_SECOND
from pipeline.asr.model_files import resolve
from tests.benchmarks.reports import median_s, report
from tests.benchmarks.timing import Runs


def main() -> None:
    chosen = arguments().parse_args()
    model = WhisperModel(
        str(resolve(chosen.model).path),
        device=chosen.device,
        compute_type=chosen.compute_type,
        cpu_threads=chosen.threads,
    )
    rows = []
    for seconds in map(int, chosen.windows.split(",")):
        shape = (chosen.rows, model.feature_extractor.mel_filters.shape[0], seconds * FRAMES_PER_SECOND)
        features = np.random.default_rng(0).normal(0.0, 0.5, shape).astype(np.float32)
        runs = {step: Runs[None]() for step in (1, 2, 4, 8) if step <= chosen.rows}
        for _ in range(chosen.rounds):
            for step, run in runs.items():
                run.measure(partial(encode, model, features, step))
        rows.append([f"{seconds} s", *(median_s(run.seconds) for run in runs.values())])
    title = f"Encoding {chosen.rows} windows of {chosen.model} {chosen.compute_type}, {chosen.threads} threads"
    report(title, ["window", *(f"{step} at a time" for step in runs)], rows)


def arguments() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--model", default="base")
    options.add_argument("--device", default="cpu")
    options.add_argument("--compute-type", default="int8")
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options.add_argument("--rows", type=int, default=8)
    options.add_argument("--windows", default="10,17,30", help="their lengths in seconds")
    options.add_argument("--rounds", type=int, default=3)
    return options


def encode(model: WhisperModel, features: np.ndarray, step: int) -> None:
    for start in range(0, len(features), step):
        np.array(model.encode(features[start : start + step]))  # waits for the result


if __name__ == "__main__":
    main()

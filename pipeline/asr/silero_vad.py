"""Voice activity detection in a stream: the Silero model of faster-whisper, with its state kept between calls."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from faster_whisper.vad import get_vad_model

from pipeline.domain.audio.spans import Span
from pipeline.domain.audio.speech import Framer, Samples, Scores, SpeechDetector, SpeechRules, merge_touching

CONTEXT_SAMPLES = 64
"""Samples of the frame before that the model gets with each frame (Silero VAD at 16 kHz)."""

FRAMES_PER_CALL = 64
"""Frames in one call of the model. More cost memory (960: 35 MB) and save no time."""

STATE_SHAPE = (1, 1, 128)
"""Shape of the hidden state and of the cell state of the recurrent layer."""


class SileroVad:
    """The voice activity detector of one recording. Each recording needs its own; all share one loaded model.

    The first use in a process loads the model, which takes some 50 ms. The wrapper in faster-whisper needs the whole
    recording at once; this one keeps the model's state and gives the same probabilities. It is not thread-safe.
    """

    def __init__(self) -> None:
        self._session = get_vad_model().session
        self._hidden = np.zeros(STATE_SHAPE, np.float32)
        self._cell = np.zeros(STATE_SHAPE, np.float32)
        self._context: npt.NDArray[np.float32] = np.zeros((1, CONTEXT_SAMPLES), np.float32)

    def probabilities(self, frames: Samples) -> Scores:
        """Return the speech probability, 0..1, of each of the next frames.

        Args:
            frames: shape ``(frames, 512)``, directly after those of the previous call.
        """
        starts = range(0, len(frames), FRAMES_PER_CALL)
        outputs = [self._run_model(frames[start : start + FRAMES_PER_CALL]) for start in starts]
        return np.concatenate([np.empty(0, np.float32), *outputs])

    def _run_model(self, frames: Samples) -> Scores:
        audio = frames.astype(np.float32) / 32768.0
        ends = audio[:, -CONTEXT_SAMPLES:]
        before = np.concatenate([self._context, ends[:-1]])
        output, self._hidden, self._cell = self._session.run(
            None, {"input": np.concatenate([before, audio], axis=1), "h": self._hidden, "c": self._cell}
        )
        self._context = ends[-1:].copy()
        return np.asarray(output, np.float32).reshape(-1)


def find_speech(samples: Samples, rules: SpeechRules) -> tuple[Span, ...]:
    """Return the speech spans of a short piece of audio.

    Args:
        samples: 16 kHz mono; the audio before and after is not known.
        rules: rules by which a frame counts as speech.
    """
    vad, framer, detector = SileroVad(), Framer(), SpeechDetector(rules)
    spans = detector.feed(vad.probabilities(framer.feed(samples)).tolist())
    spans += detector.finish(vad.probabilities(framer.finish()).tolist(), len(samples))
    return merge_touching(spans)

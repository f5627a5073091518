"""Voice activity as the audio arrives: the Silero model that faster-whisper ships, kept in state between calls."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from faster_whisper.vad import get_vad_model

from pipeline.domain.audio.spans import Span
from pipeline.domain.audio.speech import Framer, Samples, Scores, SpeechDetector, SpeechRules, merge_touching

CONTEXT_SAMPLES = 64
"""Each frame is judged together with the end of the one before (Silero VAD at 16 kHz)."""

FRAMES_PER_CALL = 64
"""More frames in one call of the model cost memory (960: 35 MB) and save no time."""

STATE_SHAPE = (1, 1, 128)
"""Of the recurrent layer's hidden and cell state."""


class SileroVad:
    """Speech probabilities of one recording; a new one for each, they all share one loaded model.

    The first use in a process loads the model, some 50 ms. faster-whisper's own wrapper wants the whole recording at
    once; this one remembers what the model needs of the past, and hears the same. Not safe for use by two threads.
    """

    def __init__(self) -> None:
        self._session = get_vad_model().session
        self._hidden = np.zeros(STATE_SHAPE, np.float32)
        self._cell = np.zeros(STATE_SHAPE, np.float32)
        self._context: npt.NDArray[np.float32] = np.zeros((1, CONTEXT_SAMPLES), np.float32)

    def probabilities(self, frames: Samples) -> Scores:
        """Speech probability of each of the next frames, 0..1.

        Args:
            frames: shape ``(frames, 512)``, following those of the call before.
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
    """Find where somebody speaks in a short piece of audio.

    Args:
        samples: 16 kHz mono; nothing is known of what comes before and after.
        rules: when a frame counts as speech.
    """
    activity, framer, detector = SileroVad(), Framer(), SpeechDetector(rules)
    found = detector.feed(activity.probabilities(framer.feed(samples)).tolist())
    found += detector.finish(activity.probabilities(framer.finish()).tolist(), len(samples))
    return merge_touching(found)

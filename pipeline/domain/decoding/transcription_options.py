"""The options of a transcription, with their defaults and limits.

Names, types and meaning are those of faster-whisper, so that nobody has to learn a second vocabulary. The constraints
are ``annotated_types``: the HTTP edge derives its validation and its documentation from this one class.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from pipeline.domain.audio.sound_options import SoundOptions


class TaskType(StrEnum):
    """The task of the model: ``transcribe`` keeps the language of the speech, ``translate`` turns it into English."""

    TRANSCRIBE = "transcribe"
    TRANSLATE = "translate"


DEFAULT_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""The fallback temperatures of Whisper's paper (Radford et al., 2022, §4.5): greedy first, then increasingly random."""

RETIRED_OPTIONS: frozenset[str] = frozenset()
"""Names of removed options that rows of earlier versions still hold; they are ignored.

Any other unknown name counts as an option of a newer version, and its task is left to that version. So a removed option
has to be named here.
"""

Probability = Annotated[float, Ge(0.0), Le(1.0)]
Temperature = Annotated[float, Ge(0.0), Le(2.0)]
MAX_TIME_S = 1_000_000.0
"""Eleven days: no recording is longer, and calculations with it stay finite."""
MIN_CLIP_S = 0.1
"""Shortest clip: no speech is shorter."""
MAX_CLIPS = 1000
Seconds = Annotated[float, Ge(0.0), Le(MAX_TIME_S)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionOptions:
    """The options for decoding one recording."""

    task_type: TaskType = TaskType.TRANSCRIBE
    """Transcribe in the language spoken, or translate into English."""
    language: str | None = None
    """Language of the speech: a code (`en`), a tag (`pt-BR`) or a name (`German`). Empty or `auto`: it is detected."""
    languages: Annotated[tuple[str, ...], MaxLen(200)] = ()
    """Languages that detection may choose from. Empty: all that the model knows."""
    multilingual: bool = False
    """Detect the language of every chunk anew, for recordings that switch languages."""
    beam_size: Annotated[int, Ge(1), Le(20)] = 5
    """Beams of the search at temperature 0."""
    best_of: Annotated[int, Ge(1), Le(20)] = 5
    """Candidates that are sampled at temperatures above 0."""
    temperature: Annotated[tuple[Temperature, ...], MinLen(1), MaxLen(10)] = DEFAULT_TEMPERATURES
    """A temperature, or a comma-separated list: a chunk that fails the thresholds below is decoded at the next one."""
    compression_ratio_threshold: Annotated[float, Ge(0.0)] | None = 2.4
    """A chunk whose text compresses better than this is repetitive and decoded again at the next temperature."""
    log_prob_threshold: Annotated[float, Le(0.0)] | None = -1.0
    """A chunk whose mean log-probability is lower is decoded again at the next temperature."""
    no_speech_threshold: Probability | None = 0.6
    """A chunk that is likelier than this to hold no speech, and whose log-probability is low, is silence."""
    condition_on_previous_text: bool = False
    """Decode the file from front to back, each chunk prompted with the text before it. Slower for one file."""
    initial_prompt: Annotated[str, MaxLen(4000)] | None = None
    """Text that sets vocabulary and style."""
    hotwords: Annotated[str, MaxLen(4000)] | None = None
    """Words to expect."""
    word_timestamps: bool = False
    """Give every word its times and probability."""
    prepend_punctuations: Annotated[str, MaxLen(100)] = "\"'“¿([{-"
    """Punctuation that belongs to the word after it."""
    append_punctuations: Annotated[str, MaxLen(100)] = "\"'.。,，!！?？:：”)]}、"
    """Punctuation that belongs to the word before it."""
    clip_timestamps: Annotated[tuple[Seconds, ...], MaxLen(2 * MAX_CLIPS)] = ()
    """`start,end,start,end…` in seconds: only these clips are transcribed, without VAD. `0`: the whole file."""
    hallucination_silence_threshold: Seconds | None = None
    """With word timestamps: text that looks made up beside a silence longer than this is dropped. `0`: off."""
    vad_filter: bool = True
    """Leave out audio without speech (Silero VAD)."""
    vad_threshold: Annotated[float, Gt(0.0), Lt(1.0)] | None = None
    """Speech probability from which a frame counts as speech. Empty: the service's setting."""
    vad_min_silence_duration_ms: Annotated[int, Ge(0), Le(60_000)] | None = None
    """Silence shorter than this does not end a speech span. Empty: the service's setting."""
    vad_speech_pad_ms: Annotated[int, Ge(0), Le(10_000)] | None = None
    """Padding on both sides of a speech span. Empty: the service's setting."""
    audio_track: Annotated[str, MinLen(1), MaxLen(35)] | None = None
    """Audio track: its index among the audio tracks, from 0, or its language (`eng`, `en`). Empty: the best one."""
    normalize_level: bool = True
    """Raise quiet speech to a working level before speech is detected and transcribed. Loud speech stays as it is."""

    @property
    def sound(self) -> SoundOptions:
        """The options that apply to the recording's sound before transcription."""
        return SoundOptions(audio_track=self.audio_track, normalize_level=self.normalize_level)

    @property
    def uses_vad(self) -> bool:
        """True if VAD decides what is transcribed; clips named by the client replace it."""
        return self.vad_filter and not self.has_clips

    @property
    def has_clips(self) -> bool:
        """True if only parts of the recording are requested; a lone 0 is the whole file, as in faster-whisper."""
        return self.clip_timestamps not in ((), (0.0,))

    @property
    def vad_options(self) -> dict[str, Any]:
        """The options that override the service's VAD settings, in the terms of faster-whisper's ``VadOptions``."""
        overrides = {
            "threshold": self.vad_threshold,
            "min_silence_duration_ms": self.vad_min_silence_duration_ms,
            "speech_pad_ms": self.vad_speech_pad_ms,
        }
        return {name: value for name, value in overrides.items() if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: enums as strings, tuples as lists."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

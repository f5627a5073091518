"""Whisper on CTranslate2: batches across requests, on top of the pieces of faster-whisper.

``WhisperModel.transcribe`` decodes one window of one file at a time and ``BatchedInferencePipeline`` the windows of one
file; the model below them takes any batch of equally long windows, each with its own prompt. This module puts chunks of
any file, language and task into such a batch, and gives the encoder only as many frames as the longest one needs.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from itertools import groupby
from math import ceil
from typing import cast

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens

from pipeline.asr.engine import FULL_WINDOW_FRAMES, Decoded, DecodeItem, Features, Samples
from pipeline.asr.faster_whisper.decoding import DecodedRow, PrecomputedAlignment, RawFields, to_decoded, to_detection
from pipeline.asr.faster_whisper.encoding import EncodedRow, encode, stacked
from pipeline.asr.model_files import ModelFiles
from pipeline.domain.decoding.quality_gate import PROMPT_TOKENS
from pipeline.domain.decoding.transcript import LanguageDetection
from pipeline.errors import DecodingFailed, ModelUnavailable, ReplicaLost
from pipeline.ports import EngineInfo

WINDOW_MARGIN_FRAMES = 200
"""Silence after the longest chunk, in which the model learns that the transcript ends."""

WINDOW_FLOOR_FRAMES = 800
"""Shortest window: in 6 s instead of 8 s more words are lost (``python -m tests.benchmarks.robustness``)."""

WINDOW_STEP_FRAMES = 100
"""Windows are whole seconds, so that few shapes are ever seen."""

MAX_INITIAL_TIMESTAMP_INDEX = 50
"""Speech begins in the window's first second (faster-whisper's default): 50 steps of 20 ms."""

TOKENS_PER_SECOND = 20
TOKENS_BESIDE_SPEECH = 24
"""Room for a transcript. A window of 30 s was trained on at most 224 tokens, 7.5 a second; scripts whose letters take
several tokens each need up to twice that, and timestamps are tokens too."""

SHORTEST_ALIGNED_FRAMES = 2
"""One step of the encoder, which halves the frames; an alignment needs one."""


class FasterWhisperEngine:
    """Satisfies ``Engine`` with a CTranslate2 Whisper model.

    Args:
        files: the model.
        device: ``cpu`` or ``cuda``.
        compute_type: CTranslate2's; ``int8``, ``float16`` …
        cpu_threads: threads of one batch on a CPU; 0 lets CTranslate2 choose.
        short_windows: whether to encode only as much as a batch needs.
        max_batch_size: told in ``info``.

    Raises:
        ModelUnavailable: the files are not a model, or the device can't run it.
    """

    def __init__(
        self,
        files: ModelFiles,
        *,
        device: str,
        compute_type: str,
        cpu_threads: int = 0,
        short_windows: bool = False,
        max_batch_size: int = 8,
    ) -> None:
        try:
            self._model = WhisperModel(
                str(files.path), device=device, compute_type=compute_type, cpu_threads=cpu_threads
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelUnavailable(
                f"The model {files.name} could not be loaded on {device} as {compute_type}; "
                "its files may be damaged, or the device may not support this compute type."
            ) from error
        self._short_windows = short_windows
        self._tokenizer = lru_cache(maxsize=None)(self._make_tokenizer)
        self._encode_text = lru_cache(maxsize=256)(self._model.hf_tokenizer.encode)
        self._suppressed = list(get_suppressed_tokens(self._tokenizer("en", "transcribe"), [-1]))
        self._info = EngineInfo(
            engine="faster_whisper",
            model=files.name,
            device=device,
            compute_type=compute_type,
            languages=self._languages(),
            max_batch_size=max_batch_size,
        )

    @property
    def info(self) -> EngineInfo:
        """What it is."""
        return self._info

    def prepare(self, samples: Samples) -> Features:
        """The log-mel spectrogram of at most 30 s of audio, without padding: shape ``(mels, frames)``."""
        if not np.isfinite(samples).all():
            raise DecodingFailed("This stretch of audio holds values that are not numbers.")
        # The last frame reaches beyond the audio; faster-whisper leaves it out as well.
        features: Features = self._model.feature_extractor(samples)[:, :-1]
        if features.shape[-1] == 0:
            raise DecodingFailed("This stretch of audio is shorter than a hundredth of a second.")
        return features[:, :FULL_WINDOW_FRAMES]

    def batch_key(self, item: DecodeItem) -> Hashable:
        """What ``generate`` takes once for a batch: how to search, and where in the prompt the transcript starts.

        And the window, where it is settled: short chunks are not to be dragged into the full window of one that has to
        be decoded again.
        """
        options = item.options
        search = ("sample", options.best_of, item.temperature) if item.temperature > 0 else ("beam", options.beam_size)
        window = item.encoding.frames if item.encoding else item.full_window
        return (*search, len(self._prompt(item, self._tokenizer("en", options.task_type.value))), window)

    def window_frames(self, items: Sequence[DecodeItem]) -> int:
        """Frames to encode for each item: the longest one's and a margin, in whole seconds; or the full 30 s."""
        if items[0].encoding:
            return items[0].encoding.frames
        if not self._short_windows or any(item.full_window for item in items):
            return FULL_WINDOW_FRAMES
        needed = max(item.frames for item in items) + WINDOW_MARGIN_FRAMES
        stepped = -(-needed // WINDOW_STEP_FRAMES) * WINDOW_STEP_FRAMES
        return min(FULL_WINDOW_FRAMES, max(WINDOW_FLOOR_FRAMES, stepped))

    def decode(self, items: Sequence[DecodeItem]) -> list[Decoded | DecodingFailed]:
        """Decodes a batch of items with equal keys. See ``Engine.decode``."""
        refusals = [self._language_error(item) for item in items]
        sound = [item for item, refusal in zip(items, refusals, strict=True) if refusal is None]
        try:
            decoded = iter(self._decode(sound) if sound else ())
        except RuntimeError as error:
            raise _translate_error(error) from error
        return [refusal or next(decoded) for refusal in refusals]

    # --- what the model knows

    def _make_tokenizer(self, language: str, task: str) -> Tokenizer:
        return Tokenizer(self._model.hf_tokenizer, self._model.model.is_multilingual, task=task, language=language)

    def _languages(self) -> tuple[str, ...]:
        vocabulary = self._model.hf_tokenizer
        known = self._model.supported_languages
        if not self._model.model.is_multilingual:
            return tuple(known)
        return tuple(language for language in known if vocabulary.token_to_id(f"<|{language}|>") is not None)

    def _language_error(self, item: DecodeItem) -> DecodingFailed | None:
        if not self._model.model.is_multilingual:
            return None  # faster-whisper, too, takes any language for English then
        known = set(self._info.languages)
        if item.language is not None and item.language not in known:
            return DecodingFailed(f"The model {self._info.model} does not know the language {item.language}.")
        if item.language is None and item.options.languages and known.isdisjoint(item.options.languages):
            return DecodingFailed(f"The model {self._info.model} knows none of the languages allowed for detection.")
        return None

    # --- decoding

    def _decode(self, items: Sequence[DecodeItem]) -> list[Decoded]:
        frames = self.window_frames(items)
        encoded = self._encode(items, frames)
        detections = self._detect(encoded, items)
        tokenizers = [self._tokenizer_of(*pair) for pair in zip(items, detections, strict=True)]
        prompts = [self._prompt(*pair) for pair in zip(items, tokenizers, strict=True)]
        budget = self._token_budget(items)
        results = self._generate(stacked(encoded), prompts, items[0], budget)
        rows = zip(items, tokenizers, detections, results, strict=True)
        decoded_rows = [self._parse_row(*row) for row in rows]
        self._add_words(encoded, decoded_rows)
        return [to_decoded(row, encoding) for row, encoding in zip(decoded_rows, encoded, strict=True)]

    def _encode(self, items: Sequence[DecodeItem], frames: int) -> list[EncodedRow]:
        """Every item's encoding: the one that comes with it, or a new one."""
        made = iter(encode(self._model, [item.features for item in items if item.encoding is None], frames))
        return [cast("EncodedRow", item.encoding) if item.encoding else next(made) for item in items]

    def _detect(self, encoded: Sequence[EncodedRow], items: Sequence[DecodeItem]) -> list[LanguageDetection | None]:
        """Detects, on what is encoded anyway, the languages of the items that have none."""
        unknown = [row for row, item in enumerate(items) if item.language is None]
        detections: list[LanguageDetection | None] = [None] * len(items)
        if not unknown or not self._model.model.is_multilingual:
            return detections
        answers = self._model.model.detect_language(stacked([encoded[row] for row in unknown]))
        for row, answer in zip(unknown, answers, strict=True):
            detections[row] = to_detection(answer, items[row].options.languages)
        return detections

    def _tokenizer_of(self, item: DecodeItem, detection: LanguageDetection | None) -> Tokenizer:
        language = detection.language if detection else item.language
        return self._tokenizer(language or "en", item.options.task_type.value)

    def _prompt(self, item: DecodeItem, tokenizer: Tokenizer) -> list[int]:
        """The item's prompt: hot words, text before it, and the start-of-transcript sequence.

        An initial prompt is the beginning of the running text where previous text is conditioned on (and comes back
        after a reset), else it stands before every chunk. At most 224 tokens go before the transcript, since the model
        needs as many for its text.
        """
        options = item.options
        initial = options.initial_prompt and options.initial_prompt.strip()
        previous = [*(self._encode_plain(f" {initial}") if initial else ()), *item.previous_tokens]
        hotwords = options.hotwords.strip() if options.hotwords else ""
        room = PROMPT_TOKENS - (len(self._encode_plain(f" {hotwords}")) if hotwords else 0)
        previous = previous[-room:] if room > 0 else []
        prompt: list[int] = self._model.get_prompt(tokenizer, previous, hotwords=hotwords or None)
        return prompt

    def _encode_plain(self, text: str) -> list[int]:
        ids: list[int] = self._encode_text(text, add_special_tokens=False).ids
        return ids

    def _token_budget(self, items: Sequence[DecodeItem]) -> int:
        """Tokens a transcript of the batch may have: a model that is caught in a loop fills all it is given."""
        longest_s = max(item.duration_s for item in items)
        room: int = self._model.max_length // 2
        return min(room, TOKENS_BESIDE_SPEECH + ceil(TOKENS_PER_SECOND * longest_s))

    def _generate(
        self, encoded: ctranslate2.StorageView, prompts: list[list[int]], first: DecodeItem, budget: int
    ) -> Sequence[ctranslate2.models.WhisperGenerationResult]:
        """One search for the whole batch, with the arguments of ``WhisperModel.generate_with_fallback``."""
        search: RawFields = {"beam_size": first.options.beam_size, "patience": 1}
        if first.temperature > 0:
            search = {
                "beam_size": 1,
                "num_hypotheses": first.options.best_of,
                "sampling_topk": 0,
                "sampling_temperature": first.temperature,
            }
        results: Sequence[ctranslate2.models.WhisperGenerationResult] = self._model.model.generate(
            encoded,
            prompts,
            length_penalty=1,
            repetition_penalty=1,
            no_repeat_ngram_size=0,
            # CTranslate2 generates at most min(max_length / 2, max_length - prompt) tokens.
            max_length=min(self._model.max_length, max(2 * budget, budget + len(prompts[0]))),
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=True,
            suppress_tokens=self._suppressed,
            max_initial_timestamp_index=MAX_INITIAL_TIMESTAMP_INDEX,
            **search,
        )
        return results

    def _parse_row(
        self,
        item: DecodeItem,
        tokenizer: Tokenizer,
        detection: LanguageDetection | None,
        result: ctranslate2.models.WhisperGenerationResult,
    ) -> DecodedRow:
        raw = list(result.sequences_ids[0])
        tokens = self._close_last_segment(raw, tokenizer.timestamp_begin, item.duration_s)
        segments, _, _ = self._model._split_segments_by_timestamps(  # noqa: SLF001 - faster-whisper has no public one
            tokenizer=tokenizer,
            tokens=tokens,
            time_offset=0.0,
            segment_size=item.frames,
            segment_duration=item.duration_s,
            seek=0,
        )
        for segment in segments:
            segment["seek"] = 0
        return DecodedRow(
            item=item,
            tokenizer=tokenizer,
            detection=detection,
            tokens=tokens,
            # The score is the mean over the text; the end-of-text token counts as well (generate_with_fallback).
            avg_logprob=result.scores[0] * len(raw) / (len(raw) + 1),
            no_speech_prob=result.no_speech_prob,
            segments=segments,
        )

    def _close_last_segment(self, tokens: list[int], timestamp_begin: int, duration_s: float) -> list[int]:
        """Return the tokens with their last segment closed, at the end of the audio where the model left it open."""
        if tokens and tokens[-1] < timestamp_begin:
            return [*tokens, timestamp_begin + round(duration_s / self._model.time_precision)]
        return tokens

    # --- word times

    def _add_words(self, encoded: Sequence[EncodedRow], decoded_rows: Sequence[DecodedRow]) -> None:
        """Give all segments their words; one alignment for each language and task."""
        spoken = [row for row, one in enumerate(decoded_rows) if one.text_tokens]

        def start_sequence(row: int) -> list[int]:
            sequence: list[int] = decoded_rows[row].tokenizer.sot_sequence
            return sequence

        for _, group in groupby(sorted(spoken, key=start_sequence), key=start_sequence):
            rows = list(group)
            alignments = self._model.find_alignment(
                decoded_rows[rows[0]].tokenizer,
                [decoded_rows[row].text_tokens for row in rows],
                stacked([encoded[row] for row in rows]),
                [max(SHORTEST_ALIGNED_FRAMES, decoded_rows[row].item.frames) for row in rows],
            )
            for row, alignment in zip(rows, alignments, strict=True):
                PrecomputedAlignment(self._model.frames_per_second, alignment).add_words(decoded_rows[row])


def _translate_error(error: RuntimeError) -> Exception:
    """CTranslate2 has one exception for all; memory that ran out and a device that failed are told by their text."""
    text = str(error).lower()
    if "out of memory" in text or "alloc_failed" in text:
        return MemoryError(str(error))
    if "cuda" in text or "cublas" in text or "cudnn" in text:
        return ReplicaLost("The GPU has failed; this replica can't decode any more.")
    return error

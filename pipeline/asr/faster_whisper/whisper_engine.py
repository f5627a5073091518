"""The Whisper engine on CTranslate2: batches of chunks of any task, built on the parts of faster-whisper.

``WhisperModel.transcribe`` decodes one window of one file at a time, ``BatchedInferencePipeline`` the windows of one
file. The CTranslate2 model below them accepts any batch of equally long windows, each with its own prompt. This module
puts chunks of any file, language and task into such a batch, and encodes only as many frames as the longest one needs.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby
from typing import cast

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens
from typing_extensions import override

from pipeline.asr.engine import FULL_WINDOW_FRAMES, Decoded, DecodeItem, Engine, Features, Samples
from pipeline.asr.faster_whisper.decoding import DecodedRow, PrecomputedAlignment, RawFields, to_decoded, to_detection
from pipeline.asr.faster_whisper.encoding import EncodedRow, encode, stacked
from pipeline.asr.faster_whisper.prompting import PromptBuilder
from pipeline.asr.faster_whisper.windows import window_frames
from pipeline.asr.model_files import ModelFiles
from pipeline.domain.decoding.engine_name import InstalledEngine
from pipeline.domain.decoding.transcript import LanguageDetection
from pipeline.errors import DecodingFailed, ModelUnavailable, ReplicaLost
from pipeline.ports import EngineInfo

MAX_INITIAL_TIMESTAMP_INDEX = 50
"""Latest start of speech in the window (faster-whisper's default): 50 steps of 20 ms, one second."""

SHORTEST_ALIGNED_FRAMES = 2
"""Minimum of an alignment: one step of the encoder, which halves the frames."""


class FasterWhisperEngine(Engine):
    """An ``Engine`` with a CTranslate2 Whisper model.

    Args:
        files: files of the model.
        device: ``cpu`` or ``cuda``.
        compute_type: CTranslate2's compute type, such as ``int8`` or ``float16``.
        cpu_threads: threads for one batch on a CPU; 0 lets CTranslate2 choose.
        short_windows: whether to encode only as many frames as a batch needs.
        max_batch_size: value of ``info``.

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
        self._prompts = PromptBuilder(self._model)
        self._suppressed = list(get_suppressed_tokens(self._prompts.tokenizer("en", "transcribe"), [-1]))
        self._info = EngineInfo(
            engine=InstalledEngine.FASTER_WHISPER,
            model=files.name,
            device=device,
            compute_type=compute_type,
            languages=self._languages(),
            max_batch_size=max_batch_size,
        )

    @property
    @override
    def info(self) -> EngineInfo:
        return self._info

    @override
    def prepare(self, samples: Samples) -> Features:
        """Return the log-mel spectrogram of at most 30 s of audio, without padding: shape ``(mels, frames)``."""
        if not np.isfinite(samples).all():
            raise DecodingFailed("This chunk of audio has values that are not numbers.")
        # The last frame extends beyond the audio; faster-whisper drops it as well.
        features: Features = self._model.feature_extractor(samples)[:, :-1]
        if features.shape[-1] == 0:
            raise DecodingFailed("This chunk of audio is shorter than a hundredth of a second.")
        return features[:, :FULL_WINDOW_FRAMES]

    @override
    def batch_key(self, item: DecodeItem) -> Hashable:
        """Return the arguments that ``generate`` takes once for a batch: the search and the length of the prompt.

        The key also has the window of an encoded item and the full window, so that short chunks are not encoded in the
        full window of a chunk that is decoded again.
        """
        options = item.options
        search = ("sample", options.best_of, item.temperature) if item.temperature > 0 else ("beam", options.beam_size)
        window = item.encoding.frames if item.encoding else item.full_window
        tokenizer = self._prompts.tokenizer("en", options.task_type.value)
        return (*search, len(self._prompts.prompt(item, tokenizer)), window)

    @override
    def window_frames(self, items: Sequence[DecodeItem]) -> int:
        return window_frames(items, short_windows=self._short_windows)

    @override
    def decode(self, items: Sequence[DecodeItem]) -> list[Decoded | DecodingFailed]:
        failures = [self._language_error(item) for item in items]
        accepted = [item for item, failure in zip(items, failures, strict=True) if failure is None]
        try:
            decoded = iter(self._decode(accepted) if accepted else ())
        except RuntimeError as error:
            raise _translate_error(error) from error
        return [failure or next(decoded) for failure in failures]

    # --- the languages of the model

    def _languages(self) -> tuple[str, ...]:
        vocabulary = self._model.hf_tokenizer
        known = self._model.supported_languages
        if not self._model.model.is_multilingual:
            return tuple(known)
        return tuple(language for language in known if vocabulary.token_to_id(f"<|{language}|>") is not None)

    def _language_error(self, item: DecodeItem) -> DecodingFailed | None:
        if not self._model.model.is_multilingual:
            return None  # an English-only model decodes any language as English, as in faster-whisper
        known = set(self._info.languages)
        if item.language is not None and item.language not in known:
            return DecodingFailed(f"The model {self._info.model} does not support the language {item.language}.")
        if item.language is None and item.options.languages and known.isdisjoint(item.options.languages):
            return DecodingFailed(f"The model {self._info.model} supports none of the languages allowed for detection.")
        return None

    # --- decoding

    def _decode(self, items: Sequence[DecodeItem]) -> list[Decoded]:
        frames = self.window_frames(items)
        encoded = self._encode(items, frames)
        detections = self._detect(encoded, items)
        tokenizers = [
            self._prompts.tokenizer(detection.language if detection else item.language, item.options.task_type.value)
            for item, detection in zip(items, detections, strict=True)
        ]
        prompts = [self._prompts.prompt(*pair) for pair in zip(items, tokenizers, strict=True)]
        budget = self._prompts.token_budget(items)
        results = self._generate(stacked(encoded), prompts, items[0], budget)
        rows = zip(items, tokenizers, detections, results, strict=True)
        decoded_rows = [self._parse_row(*row) for row in rows]
        self._add_words(encoded, decoded_rows)
        return [to_decoded(row, encoding) for row, encoding in zip(decoded_rows, encoded, strict=True)]

    def _encode(self, items: Sequence[DecodeItem], frames: int) -> list[EncodedRow]:
        """Return every item's encoding: the item's own if it has one, otherwise a new one."""
        new = iter(encode(self._model, [item.features for item in items if item.encoding is None], frames))
        return [cast("EncodedRow", item.encoding) if item.encoding else next(new) for item in items]

    def _detect(self, encoded: Sequence[EncodedRow], items: Sequence[DecodeItem]) -> list[LanguageDetection | None]:
        """Detect the languages of the items that have none, from their encodings; ``None`` for the other items."""
        unknown = [row for row, item in enumerate(items) if item.language is None]
        detections: list[LanguageDetection | None] = [None] * len(items)
        if not unknown or not self._model.model.is_multilingual:
            return detections
        scores_by_row = self._model.model.detect_language(stacked([encoded[row] for row in unknown]))
        for row, scores in zip(unknown, scores_by_row, strict=True):
            detections[row] = to_detection(scores, items[row].options.languages)
        return detections

    def _generate(
        self, encoded: ctranslate2.StorageView, prompts: list[list[int]], first: DecodeItem, budget: int
    ) -> Sequence[ctranslate2.models.WhisperGenerationResult]:
        """Run one search for the whole batch, with the arguments of ``WhisperModel.generate_with_fallback``."""
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
        segments, _, _ = self._model._split_segments_by_timestamps(  # noqa: SLF001 - there is no public one
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
            # The score is the mean over the text tokens; the end-of-text token must count too (generate_with_fallback).
            avg_logprob=result.scores[0] * len(raw) / (len(raw) + 1),
            no_speech_prob=result.no_speech_prob,
            segments=segments,
        )

    def _close_last_segment(self, tokens: list[int], timestamp_begin: int, duration_s: float) -> list[int]:
        """Return the tokens with their last segment closed, at the end of the audio if the model did not close it."""
        if tokens and tokens[-1] < timestamp_begin:
            return [*tokens, timestamp_begin + round(duration_s / self._model.time_precision)]
        return tokens

    # --- word times

    def _add_words(self, encoded: Sequence[EncodedRow], decoded_rows: Sequence[DecodedRow]) -> None:
        """Add the words to all segments, with one alignment for each language and task."""
        with_text = [row for row, one in enumerate(decoded_rows) if one.text_tokens]

        def start_sequence(row: int) -> list[int]:
            sequence: list[int] = decoded_rows[row].tokenizer.sot_sequence
            return sequence

        for _, group in groupby(sorted(with_text, key=start_sequence), key=start_sequence):
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
    """Return our error for one of CTranslate2, which has one class for all: only the text tells the cause."""
    text = str(error).lower()
    if "out of memory" in text or "alloc_failed" in text:
        return MemoryError(str(error))
    if "cuda" in text or "cublas" in text or "cudnn" in text:
        return ReplicaLost("The GPU has failed; this replica can't decode any more.")
    return error

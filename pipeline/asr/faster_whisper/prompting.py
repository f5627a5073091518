"""The decoder's prompt, and the number of tokens that it may generate after it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil

from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer

from pipeline.asr.engine import DecodeItem
from pipeline.domain.decoding.quality_gate import PROMPT_TOKENS

TOKENS_PER_SECOND = 20
TOKENS_BESIDE_SPEECH = 24
"""Token budget of a transcript, for each second and for every transcript.

The model was trained on windows of 30 s with at most 224 tokens, 7.5 a second. Scripts whose letters take several
tokens each need up to twice that, and timestamps are tokens too.
"""


class PromptBuilder:
    """The tokenizers of a model, and the prompts made with them."""

    def __init__(self, model: WhisperModel) -> None:
        self._model = model
        self._encode_text = lru_cache(maxsize=256)(model.hf_tokenizer.encode)
        self._tokenizer = lru_cache(maxsize=None)(self._make_tokenizer)

    def tokenizer(self, language: str | None, task: str) -> Tokenizer:
        """Return the tokenizer for a language (English if ``None``) and a task, ``transcribe`` or ``translate``."""
        return self._tokenizer(language or "en", task)

    def prompt(self, item: DecodeItem, tokenizer: Tokenizer) -> list[int]:
        """Return the item's prompt: hot words, text before it, and the start-of-transcript sequence.

        If the task conditions on previous text, an initial prompt is the beginning of that text, and returns after a
        reset. Otherwise it precedes every chunk. At most ``PROMPT_TOKENS`` tokens precede the transcript, since the
        model needs as many for its text.
        """
        options = item.options
        initial = options.initial_prompt and options.initial_prompt.strip()
        previous = [*(self._encode_plain(f" {initial}") if initial else ()), *item.previous_tokens]
        hotwords = options.hotwords.strip() if options.hotwords else ""
        room = PROMPT_TOKENS - (len(self._encode_plain(f" {hotwords}")) if hotwords else 0)
        previous = previous[-room:] if room > 0 else []
        prompt: list[int] = self._model.get_prompt(tokenizer, previous, hotwords=hotwords or None)
        return prompt

    def token_budget(self, items: Sequence[DecodeItem]) -> int:
        """Return how many tokens a transcript of the batch may have: a model in a repetition loop uses them all."""
        longest_s = max(item.duration_s for item in items)
        room: int = self._model.max_length // 2
        return min(room, TOKENS_BESIDE_SPEECH + ceil(TOKENS_PER_SECOND * longest_s))

    def _make_tokenizer(self, language: str, task: str) -> Tokenizer:
        return Tokenizer(self._model.hf_tokenizer, self._model.model.is_multilingual, task=task, language=language)

    def _encode_plain(self, text: str) -> list[int]:
        ids: list[int] = self._encode_text(text, add_special_tokens=False).ids
        return ids

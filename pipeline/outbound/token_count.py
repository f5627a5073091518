"""Counts the tokens that a model makes of a text.

OpenAI's tokenizer, tiktoken, counts exactly, but downloads its vocabularies at first use. Nothing is downloaded here:
tiktoken counts for a model that it knows if ``TIKTOKEN_CACHE_DIR`` holds the model's vocabulary. For all other models
the number is an estimate that is rather too high.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import tiktoken
from tiktoken.model import encoding_name_for_model

from pipeline.domain.summaries.transcript_pieces import TokenCounter, estimate_tokens

VOCABULARIES = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
"""The URL of a vocabulary. tiktoken names the file in its cache by the SHA-1 of this URL."""


def token_counter(model: str) -> TokenCounter:
    """Return the token counter of a model, which is exact if that is possible without the network."""
    try:
        name = encoding_name_for_model(model)
    except KeyError:
        return estimate_tokens
    if not _cached_file(name).is_file():
        return estimate_tokens
    encoding = tiktoken.get_encoding(name)
    return lambda text: len(encoding.encode_ordinary(text))


def _cached_file(encoding_name: str) -> Path:
    folder = os.environ.get("TIKTOKEN_CACHE_DIR")
    key = hashlib.sha1(VOCABULARIES.format(encoding_name).encode(), usedforsecurity=False).hexdigest()
    return Path(folder or os.devnull) / key

"""How many tokens a text is for a model.

OpenAI's own tokenizer, tiktoken, counts exactly, but fetches its vocabularies at first use. Nothing is fetched here:
where ``TIKTOKEN_CACHE_DIR`` holds the vocabulary of a model that tiktoken knows, it counts; for all others there is an
estimate that is on the safe side.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import tiktoken
from tiktoken.model import encoding_name_for_model

from pipeline.domain.summaries.transcript_pieces import TokenCounter, estimate_tokens

VOCABULARIES = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
"""Where tiktoken fetches a vocabulary from; its cache names files by the SHA-1 of this."""


def token_counter(model: str) -> TokenCounter:
    """Counts for this model, exactly if that can be done without the network."""
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

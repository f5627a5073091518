"""The vocabulary of this version, by which rows of a newer version are recognized."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from functools import cache

from pipeline.domain.audio.tracks import Track
from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.transcription_options import TaskType, TranscriptionOptions
from pipeline.domain.links.platforms import LinkKind
from pipeline.domain.summaries.summary import SummaryFormat, SummaryOptions
from pipeline.domain.tasks.task import Priority, Stage, Status
from pipeline.store.rows.compact_json import to_json


@cache
def vocabulary_digest() -> str:
    """Return a digest of all words and keys that this version can read, the same for every process of it.

    A row that is left to a newer version is marked with the digest, so that this version does not read it again.
    """
    enums = (Status, Priority, Stage, EngineName, TaskType, LinkKind, SummaryFormat)
    shapes = (TranscriptionOptions, SummaryOptions, Track)
    known = [[str(word) for word in enum] for enum in enums] + [sorted(each.name for each in fields(s)) for s in shapes]
    return hashlib.sha256(to_json(known).encode()).hexdigest()[:16]

"""The seams of the system: what the use cases need from the world, each as one Protocol.

Every port has a fake in ``pipeline.testing`` that passes the same contract tests as the real adapter.
"""

from pipeline.ports.asr import ChunkFailure, EngineInfo, Transcriber, Unit
from pipeline.ports.callbacks import (
    CallbackAnswer,
    CallbackSender,
    DeliveryAttempt,
    OutboxMessage,
    TaskRecordEncoder,
    Verdict,
)
from pipeline.ports.clock import Clock
from pipeline.ports.crawl import CrawledMedia, Crawler, CrawlProgress, CrawlRequest
from pipeline.ports.llm import LanguageModel, LanguageModels, Summarizer, SummaryOrder, Written
from pipeline.ports.media import AudioExtractor, MediaStore
from pipeline.ports.metrics import Metrics
from pipeline.ports.split import SplitDone, SplitPart, SplitRequest, Splitter
from pipeline.ports.tasks import (
    Lease,
    QueueStats,
    StoredChunks,
    SummaryTurn,
    TaskPage,
    TaskQuery,
    TaskRecords,
    TaskStore,
)
from pipeline.ports.uploads import UploadStore

__all__ = [
    "AudioExtractor",
    "CallbackAnswer",
    "CallbackSender",
    "ChunkFailure",
    "Clock",
    "CrawlProgress",
    "CrawlRequest",
    "CrawledMedia",
    "Crawler",
    "DeliveryAttempt",
    "EngineInfo",
    "LanguageModel",
    "LanguageModels",
    "Lease",
    "MediaStore",
    "Metrics",
    "OutboxMessage",
    "QueueStats",
    "SplitDone",
    "SplitPart",
    "SplitRequest",
    "Splitter",
    "StoredChunks",
    "Summarizer",
    "SummaryOrder",
    "SummaryTurn",
    "TaskPage",
    "TaskQuery",
    "TaskRecordEncoder",
    "TaskRecords",
    "TaskStore",
    "Transcriber",
    "Unit",
    "UploadStore",
    "Verdict",
    "Written",
]

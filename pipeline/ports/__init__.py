"""Ports: the interfaces through which use cases reach the outside world, each as a Protocol.

Every port has a fake in ``pipeline.testing`` that passes the same contract tests as the real adapter.
"""

from pipeline.ports.callbacks import (
    CallbackResponse,
    CallbackSender,
    DeliveryAttempt,
    DeliveryVerdict,
    OutboxMessage,
    TaskRecordEncoder,
)
from pipeline.ports.clock import Clock
from pipeline.ports.fetching import CrawledMedia, Crawler, CrawlProgress, CrawlRequest
from pipeline.ports.language_model import LanguageModel, LanguageModels, LlmCompletion, Summarizer, SummaryJob
from pipeline.ports.metrics import Metrics, NullMetrics
from pipeline.ports.recordings import AudioExtractor, MediaStore
from pipeline.ports.splitting import SplitDone, SplitPart, SplitRequest, Splitter
from pipeline.ports.task_records import TaskRecords
from pipeline.ports.task_signals import TaskSignals
from pipeline.ports.task_store import TaskStore
from pipeline.ports.task_values import Lease, QueueStats, StoredChunks, SummaryLease, TaskPage, TaskQuery
from pipeline.ports.transcription import ChunkFailure, EngineInfo, Transcriber, Unit
from pipeline.ports.uploads import UploadStore

__all__ = [
    "AudioExtractor",
    "CallbackResponse",
    "CallbackSender",
    "ChunkFailure",
    "Clock",
    "CrawlProgress",
    "CrawlRequest",
    "CrawledMedia",
    "Crawler",
    "DeliveryAttempt",
    "DeliveryVerdict",
    "EngineInfo",
    "LanguageModel",
    "LanguageModels",
    "Lease",
    "LlmCompletion",
    "MediaStore",
    "Metrics",
    "NullMetrics",
    "OutboxMessage",
    "QueueStats",
    "SplitDone",
    "SplitPart",
    "SplitRequest",
    "Splitter",
    "StoredChunks",
    "Summarizer",
    "SummaryJob",
    "SummaryLease",
    "TaskPage",
    "TaskQuery",
    "TaskRecordEncoder",
    "TaskRecords",
    "TaskSignals",
    "TaskStore",
    "Transcriber",
    "Unit",
    "UploadStore",
]

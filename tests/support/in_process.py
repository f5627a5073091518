"""The whole pipeline in this process, without Ray, HTTP and a database: for tests and benchmarks of transcripts.

Recordings go through the Dispatcher as tasks, so that chunks, languages and batches follow the rules of the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pipeline.asr.batcher import MicroBatcher
from pipeline.asr.faster_whisper.whisper_engine import FasterWhisperEngine
from pipeline.asr.model_files import resolve
from pipeline.asr.silero_vad import SileroVad
from pipeline.asr.transcriber import LocalTranscriber
from pipeline.domain.decoding.transcript import Transcript
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.tasks.task import NewTask, Task
from pipeline.errors import MurmurationError
from pipeline.media.audio_decoder import AudioDecoder
from pipeline.media.streaming_splitter import StreamingSplitter
from pipeline.ports import NullMetrics
from pipeline.settings import BatchSettings, DispatchSettings, Settings
from pipeline.system_clock import SystemClock
from pipeline.testing.memory_media import MemoryMediaStore
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.usecases.dispatch.dispatcher import Dispatcher
from pipeline.usecases.task_notifier import TaskNotifier
from tests.support.recordings import stream

CONCURRENCY = 16
"""Recordings that are transcribed at the same time, so that their chunks share batches."""

WATCH_S = 10.0
"""Longest wait in one call for the end of a task."""

Finished = Callable[[int, Transcript], None]
"""A function of the index of a recording and its transcript."""


class InProcess:
    """The pipeline with one loaded model; to be closed after use.

    Args:
        short_windows: whether the encoder gets only as much as a batch needs.
        quality_gate: whether chunks that fail their thresholds are decoded again.
        batch_size: chunks that are decoded together at most.
        model: a name or folder that the service knows.
        compute_type: CTranslate2's.
        threads: threads of one batch; 0 lets CTranslate2 choose.
    """

    def __init__(
        self,
        *,
        short_windows: bool,
        quality_gate: bool = True,
        batch_size: int = 8,
        model: str = "base",
        compute_type: str = "int8",
        threads: int = 0,
    ) -> None:
        engine = FasterWhisperEngine(
            resolve(model),
            device="cpu",
            compute_type=compute_type,
            cpu_threads=threads,
            short_windows=short_windows,
            max_batch_size=batch_size,
        )
        self._settings = Settings(dispatch=DispatchSettings(max_active_tasks=CONCURRENCY))
        self._media = MemoryMediaStore()
        self._batcher = MicroBatcher(
            engine, BatchSettings(max_batch_size=batch_size, quality_gate=quality_gate)
        ).start()
        self._transcriber = LocalTranscriber(self._media, engine, self._batcher)
        self._transcriber.warm_up()

    def close(self) -> None:
        """Stop the threads."""
        self._transcriber.close()
        self._batcher.close()

    def transcribe_all(
        self,
        paths: Sequence[Path],
        options: TranscriptionOptions,
        languages: Sequence[str | None],
        finished: Finished = lambda index, transcript: None,
    ) -> list[Transcript]:
        """Transcribe recordings, ``CONCURRENCY`` at a time.

        Args:
            paths: of the recordings.
            options: of all of them; their language is replaced.
            languages: of each recording; ``None`` has it detected.
            finished: called with each transcript as it comes, in any order.

        Returns:
            The transcripts, in order of ``paths``.

        Raises:
            MurmurationError: a recording could not be transcribed.
        """
        each = [replace(options, language=language) for language in languages]
        return asyncio.run(self._transcribe_all(paths, each, finished))

    async def _transcribe_all(
        self, paths: Sequence[Path], options: Sequence[TranscriptionOptions], finished: Finished
    ) -> list[Transcript]:
        tasks = MemoryTaskStore(SystemClock())
        notifier = TaskNotifier()
        dispatcher = self._dispatcher(tasks, notifier)
        slots = asyncio.Semaphore(CONCURRENCY)

        async def transcribe(index: int, path: Path, chosen: TranscriptionOptions) -> Transcript:
            async with slots:
                task = await self._create(tasks, index, path, chosen)
                dispatcher.wake()
                transcript = await _result(tasks, notifier, task)
            finished(index, transcript)
            return transcript

        running = asyncio.create_task(dispatcher.run())
        try:
            requests = enumerate(zip(paths, options, strict=True))
            return await asyncio.gather(*(transcribe(index, *request) for index, request in requests))
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    def _dispatcher(self, tasks: MemoryTaskStore, notifier: TaskNotifier) -> Dispatcher:
        settings = self._settings
        splitter = StreamingSplitter(
            self._media,
            SileroVad,
            settings.vad,
            settings.split,
            lambda file, sound: AudioDecoder(file, settings.media.max_duration_s, sound),
        )
        return Dispatcher(
            owner="benchmark",
            store=tasks,
            media=self._media,
            splitter=splitter,
            transcriber=self._transcriber,
            clock=SystemClock(),
            settings=settings,
            metrics=NullMetrics(),
            notifier=notifier,
        )

    async def _create(self, tasks: MemoryTaskStore, index: int, path: Path, options: TranscriptionOptions) -> Task:
        key = f"{index}/source"
        await self._media.write(key, _content(path))
        task, _ = await tasks.create(NewTask(media_prefix=f"{index}", media_key=key, options=options))
        return task


def _content(path: Path) -> AsyncIterator[bytes]:
    return stream(path.read_bytes())


async def _result(tasks: MemoryTaskStore, notifier: TaskNotifier, task: Task) -> Transcript:
    """Wait for the end of a task. Raises ``MurmurationError`` if it failed."""
    while not (ended := await tasks.get(task.id, include_result=True)).status.finished:
        await notifier.watch_end(task.id, WATCH_S)
    if ended.result is None:
        raise MurmurationError(f"A recording could not be transcribed: {ended.error}")
    return ended.result

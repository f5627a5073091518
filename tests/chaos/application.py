"""One application without Ray, HTTP and a model: a Dispatcher, a splitter and an engine that knows no speech.

``python -m tests.chaos.application``, with the settings in the environment. It says ``ready``, works until SIGTERM, and
then says how many chunks it decoded. Several of them on one database are what several clusters are. Its time of day is
off by the seconds that the file named in ``CLOCK_OFFSET_FILE`` holds, and jumps when they change.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path

from deployments.api.response.task_record import encode_record
from deployments.wiring import media_store, sandbox, splitter, task_store, upload_store
from pipeline.asr.batcher import MicroBatcher
from pipeline.asr.simulated_engine import SimulatedEngine
from pipeline.asr.transcriber import LocalTranscriber
from pipeline.domain.decoding.engine_name import InstalledEngine
from pipeline.net import GuardedClient
from pipeline.outbound.webhook_sender import WebhookSender
from pipeline.ports import NullMetrics
from pipeline.process_identity import own_name
from pipeline.settings import BatchSettings, Settings
from pipeline.system_clock import SynchronizedClock
from pipeline.testing.fake_engine import FakeEngine
from pipeline.usecases.callbacks.callback_delivery import CallbackDeliverer
from pipeline.usecases.dispatch.dispatcher import Dispatcher
from pipeline.usecases.tasks.housekeeping import Housekeeper

CLOCK_OFFSET_FILE = "TEST_CLOCK_OFFSET_FILE"


class JumpingClock(SynchronizedClock):
    """The clock, off by as many seconds as a file says at the moment.

    Args:
        file: holds a number; empty or absent: 0.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def now(self) -> datetime:
        """Return the time of day, aware UTC."""
        text = self._file.read_text() if self._file.exists() else ""
        return super().now() + timedelta(seconds=float(text or 0))


def own_clock() -> SynchronizedClock:
    """Return the clock that the environment asks for."""
    file = os.environ.get(CLOCK_OFFSET_FILE)
    return SynchronizedClock() if file is None else JumpingClock(Path(file))


def own_engine(settings: Settings) -> SimulatedEngine:
    """Return the engine that the settings name: one that takes as long as a real one, or one that takes no time."""
    simulated = settings.asr.engine is InstalledEngine.WAITING
    return SimulatedEngine.of_model(settings.asr.model) if simulated else FakeEngine()


async def main(settings: Settings, clock: SynchronizedClock) -> None:
    owner, engine = own_name(), own_engine(settings)
    store, media, stop = task_store(settings, clock), media_store(settings), asyncio.Event()
    batcher = MicroBatcher(engine, BatchSettings()).start()
    sender = WebhookSender(GuardedClient(settings.network), settings.callback, clock)
    courier = CallbackDeliverer(
        store, sender, encode_record, clock, NullMetrics(), settings.callback, owner=owner, poll_s=0.1
    )
    dispatcher = Dispatcher(
        owner=owner,
        store=store,
        media=media,
        splitter=splitter(settings, sandbox(settings)),
        transcriber=LocalTranscriber(media, engine, batcher),
        clock=clock,
        settings=settings,
        metrics=NullMetrics(),
        finished=courier.wake,
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await dispatcher.prepare()
    running = asyncio.create_task(dispatcher.run())
    delivering = asyncio.create_task(courier.run(stop))
    reaping = asyncio.create_task(Housekeeper(store, upload_store(store), media, clock, settings).run())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await stop.wait()
    for loop in (running, reaping):
        loop.cancel()
    await asyncio.gather(running, delivering, reaping, return_exceptions=True)
    await store.close()
    sys.stdout.write(f"{batcher.stats().chunks}\n")


if __name__ == "__main__":
    asyncio.run(main(Settings(), own_clock()))

"""One application without Ray, HTTP and a model: a Dispatcher, a splitter and an engine that knows no speech.

``python -m tests.chaos.application``, with the settings in the environment. It says ``ready``, works until SIGTERM, and
then says how many chunks it decoded. Several of them on one database are what several clusters are.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from deployments.api.schemas import encode_record
from deployments.wiring import media_store, splitter, task_store, upload_store
from pipeline.asr.batch import MicroBatcher
from pipeline.asr.transcriber import LocalTranscriber
from pipeline.clock import FollowingClock
from pipeline.net import GuardedClient
from pipeline.observability import NoMetrics
from pipeline.outbound.callback import WebhookSender
from pipeline.process import own_name
from pipeline.settings import BatchSettings, Settings
from pipeline.testing.engine import FakeEngine
from pipeline.usecases.deliver_callback import CallbackCourier
from pipeline.usecases.dispatch import Dispatcher
from pipeline.usecases.reap import Reaper


async def main(settings: Settings) -> None:
    clock, owner, engine = FollowingClock(), own_name(), FakeEngine()
    store, media, stop = task_store(settings, clock), media_store(settings), asyncio.Event()
    sender = WebhookSender(GuardedClient(settings.network), settings.callback, clock)
    courier = CallbackCourier(
        store, sender, encode_record, clock, NoMetrics(), settings.callback, owner=owner, poll_s=0.1
    )
    dispatcher = Dispatcher(
        owner=owner,
        store=store,
        media=media,
        splitter=splitter(settings),
        transcriber=LocalTranscriber(media, engine, MicroBatcher(engine, BatchSettings()).start()),
        clock=clock,
        settings=settings,
        metrics=NoMetrics(),
        finished=courier.wake,
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await dispatcher.prepare()
    running = asyncio.create_task(dispatcher.run())
    delivering = asyncio.create_task(courier.run(stop))
    reaping = asyncio.create_task(Reaper(store, upload_store(store), media, clock, settings).run())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await stop.wait()
    for loop in (running, reaping):
        loop.cancel()
    await asyncio.gather(running, delivering, reaping, return_exceptions=True)
    await store.close()
    sys.stdout.write(f"{sum(map(len, engine.batches))}\n")


if __name__ == "__main__":
    asyncio.run(main(Settings()))

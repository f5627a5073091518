"""A client that follows a task by server-sent events, while the process that tells them is killed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import httpx
import httpx_sse
import pytest

from tests.chaos.batch import Batch
from tests.chaos.service import POLL_S, ChaosService
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(120, func_only=True)

RecordProperty = Callable[[str, object], None]


def test_an_ingress_while_a_task_is_followed(
    service: ChaosService, batch: Batch, record_property: RecordProperty
) -> None:
    follower = Follower(service, batch.submit(12))
    eventually(lambda: follower.last_event_id, "the first chunk is told")
    batch.kill("Ingress")
    records = batch.check_nothing_is_lost()
    [record] = records.values()
    assert follower.told_by_the_end() == record["result"]["text"].strip()
    assert follower.streams >= 2, "the stream outlived its process"
    assert record["attempts"] == 1
    record_property("recovery_s", batch.recovery_s(records))


class Follower:
    """A client like a browser's ``EventSource``: it opens a broken stream again after the last id received.

    Attributes:
        last_event_id: of the last event that had one.
        streams: how often a stream was opened.
    """

    def __init__(self, service: ChaosService, task_id: int) -> None:
        self._client, self._task_id = service.client, task_id
        self._told: list[str] = []  # texts up to the last id
        self._since: list[str] = []  # texts after it, which are told again if the stream breaks here
        self._ended = False
        self.last_event_id = ""
        self.streams = 0
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def told_by_the_end(self) -> str:
        """Return all events, once the task has ended."""
        self._thread.join(90.0)
        assert self._ended, "the end was not told"
        return "".join([*self._told, *self._since]).strip()

    def _follow(self) -> None:
        while not self._ended:
            self._since = []
            try:
                self._read_stream()
            except (httpx.TransportError, httpx.HTTPStatusError):  # the process is gone, or not yet replaced
                time.sleep(POLL_S)

    def _read_stream(self) -> None:
        url, headers = "/api/whisper/tasks/events", {"Last-Event-ID": self.last_event_id}
        with httpx_sse.connect_sse(
            self._client, "GET", url, params={"task_id": self._task_id}, headers=headers, timeout=90.0
        ) as source:
            source.response.raise_for_status()
            self.streams += 1
            for event in source.iter_sse():
                self._take(event)

    def _take(self, event: httpx_sse.ServerSentEvent) -> None:
        if event.event == "segment":
            self._since.append(json.loads(event.data)["text"])
        if event.id and event.id != self.last_event_id:
            self._told += self._since
            self._since, self.last_event_id = [], event.id
        self._ended = self._ended or event.event == "completed"

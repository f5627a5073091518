"""Processes of a running service are killed at the worst moment; no task, no text and no callback may be lost."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.chaos.batch import Batch
from tests.chaos.service import CONTROLLER, PROXY, ChaosService
from tests.standins.llm import LlmServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(120, func_only=True)

RecordProperty = Callable[[str, object], None]


def test_a_whisper_replica_in_mid_batch(service: ChaosService, batch: Batch, record_property: RecordProperty) -> None:
    idle_s = service.cpu_s("WhisperReplica")
    batch.submit_mixed([12, 8, 6, 2, 2])
    eventually(lambda: service.cpu_s("WhisperReplica") > idle_s + 0.4, "the replica is decoding")
    batch.kill("WhisperReplica")
    records = batch.check_nothing_is_lost()
    assert {record["attempts"] for record in records.values()} == {1}, "a lost unit is no lost attempt"
    record_property("recovery_s", batch.recovery_s(records))


def test_the_splitter_in_mid_decode(service: ChaosService, batch: Batch, record_property: RecordProperty) -> None:
    long = batch.submit(20, pause_s=27.0)  # ten minutes: long to decode, soon transcribed
    batch.submit_mixed([2, 2])
    eventually(lambda: any("source" not in path.name for path in service.media_files()), "a part is prepared")
    batch.kill("Splitter")
    assert batch.records()[long]["file_duration"] is None, "it was split before the kill"
    records = batch.check_nothing_is_lost()
    assert records[long]["attempts"] == 1, "what is split goes on where it was"
    record_property("recovery_s", batch.recovery_s(records))


def test_the_dispatcher_while_tasks_run(service: ChaosService, batch: Batch, record_property: RecordProperty) -> None:
    batch.submit_mixed([10, 6, 4, 2])
    eventually(lambda: any(record["status"] == "processing" for record in batch.records().values()), "a task runs")
    batch.kill("Dispatcher")
    records = batch.check_nothing_is_lost()
    assert max(record["attempts"] for record in records.values()) == 2, "whose lease was held is run once more"
    record_property("recovery_s", batch.recovery_s(records))


@pytest.mark.parametrize("deployment", ["Summarizer", "Dispatcher"])
def test_a_summary_outlives_who_writes_it(
    service: ChaosService, batch: Batch, llm: LlmServer, record_property: RecordProperty, deployment: str
) -> None:
    model = f"silent-once-{deployment}"
    batch.submit(2, summarize="true", summary_model=model)
    eventually(lambda: llm.calls(model), "the language model is asked")
    batch.kill(deployment)
    records = batch.check_nothing_is_lost()
    [record] = records.values()
    assert (record["summary_status"], record["attempts"]) == ("completed", 1)
    assert "fox" in record["summary"]["text"]
    assert llm.calls(model) == 2
    record_property("recovery_s", batch.recovery_s(records))


def test_an_ingress_in_mid_upload_and_in_mid_wait(
    service: ChaosService, batch: Batch, record_property: RecordProperty
) -> None:
    waited_for = batch.submit(10)
    batch.submit(3)
    waiting = WaitingClient(service, waited_for)
    before = set(service.media_files())

    def body() -> Iterator[bytes]:
        yield b'--edge\r\nContent-Disposition: form-data; name="file_upload"; filename="cut.ogg"\r\n\r\n'
        yield bytes(3 * 1024 * 1024)
        eventually(lambda: _uploading(service, before), "the upload has begun")
        batch.kill("Ingress")
        yield bytes(3 * 1024 * 1024)
        yield b"\r\n--edge--\r\n"

    _expect_a_broken_upload(service, body())
    batch.submit(2, "high")
    records = batch.check_nothing_is_lost()  # the half of an upload among it: its writer is known to be dead
    assert {record["attempts"] for record in records.values()} == {1}
    assert waiting.is_told_of_the_break()
    record_property("recovery_s", batch.recovery_s(records))


class WaitingClient:
    """A client that waits for a task's end in one long request."""

    def __init__(self, service: ChaosService, task_id: int) -> None:
        self._service, self._task_id = service, task_id
        self._outcome: httpx.Response | httpx.TransportError | None = None
        self._thread = threading.Thread(target=self._wait)
        self._thread.start()

    def _wait(self) -> None:
        try:
            parameters = {"task_id": self._task_id, "wait_s": 60}
            self._outcome = self._service.client.get("/api/whisper/tasks/result", params=parameters, timeout=90.0)
        except httpx.TransportError as error:
            self._outcome = error

    def is_told_of_the_break(self) -> bool:
        """Return whether the client, which got no result, could tell by its connection or a status of 500 and above."""
        self._thread.join()
        return isinstance(self._outcome, httpx.TransportError) or (
            self._outcome is not None and self._outcome.is_server_error
        )


def _uploading(service: ChaosService, before: set[Path]) -> list[Path]:
    return [path for path in set(service.media_files()) - before if path.name.endswith(".partial")]


def _expect_a_broken_upload(service: ChaosService, body: Iterator[bytes]) -> None:
    try:
        answer = service.client.post(
            "/api/whisper/tasks/create", content=body, headers={"Content-Type": "multipart/form-data; boundary=edge"}
        )
    except httpx.TransportError:
        return
    assert answer.is_server_error, answer.text


def test_the_controller(service: ChaosService, batch: Batch, record_property: RecordProperty) -> None:
    batch.submit_mixed([6, 2])
    batch.kill(CONTROLLER)
    answer = service.client.get("/api/health/check")
    batch.submit_mixed([2, 2])
    records = batch.check_nothing_is_lost()
    assert answer.status_code == httpx.codes.OK, "requests do not need the controller"
    assert {record["attempts"] for record in records.values()} == {1}
    record_property("recovery_s", batch.recovery_s(records))
    eventually(lambda: service.victims(CONTROLLER), "there is a controller again")


def test_the_http_proxy(service: ChaosService, batch: Batch, record_property: RecordProperty) -> None:
    batch.submit_mixed([6, 2])
    batch.kill(PROXY)
    killed_at = time.monotonic()
    eventually(service.is_ready, "requests are answered again")
    record_property("recovery_s", round(time.monotonic() - killed_at, 1))
    batch.submit(2)
    records = batch.check_nothing_is_lost()
    assert {record["attempts"] for record in records.values()} == {1}, "work goes on without HTTP"


@pytest.mark.slow
def test_three_kills_at_random_moments(service: ChaosService, batch: Batch, record_property: RecordProperty) -> None:
    chance = random.Random(20)
    for deployment in chance.sample(["WhisperReplica", "Splitter", "Dispatcher", "Ingress"], 3):
        batch.submit_mixed([3, 2, 1, 1])
        time.sleep(chance.uniform(0.0, 2.0))
        batch.kill(deployment)
    records = batch.check_nothing_is_lost()
    assert len(records) == 12
    record_property("recovery_s", batch.recovery_s(records))

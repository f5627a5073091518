"""Processes of a running service are killed at the worst moment; no task, no text and no callback may be lost.

Every recording says one sentence many times, so that a chunk that got lost or was done twice shows in the text.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests import speech
from tests.chaos.conftest import Receiver, Record, Service, eventually
from tests.standins.llm import LlmServer

pytestmark = pytest.mark.timeout(120, func_only=True)

SENTENCE = "the quick brown fox jumps over the lazy dog"
PRIORITIES = ("low", "normal", "high")
LONG_AGO_S = 2 * 3600.0
"""Older than the age at which media without a task is swept."""

RecordProperty = Callable[[str, object], None]
Foxes = Callable[[int, float], bytes]

PAUSE_S = 1.5


@pytest.fixture(scope="session")
def foxes(tmp_path_factory: pytest.TempPathFactory) -> Foxes:
    """A recording of so many sentences of 3 s, each after a pause of so many seconds."""
    fox = next(sample for sample in speech.of_language("en") if sample.name == "quick_brown_fox")
    folder = tmp_path_factory.mktemp("foxes")

    def make(sentences: int, pause_s: float) -> bytes:
        path = folder / f"{sentences}-{pause_s}.ogg"
        if not path.exists():
            speech.encode(speech.join([fox] * sentences, [pause_s] * sentences).audio, path)
        return path.read_bytes()

    return make


class Batch:
    """Tasks of one test, submitted with a callback, and what is to become of them."""

    def __init__(self, service: Service, receiver: Receiver, foxes: Foxes) -> None:
        self._service, self._receiver, self._foxes = service, receiver, foxes
        self._rows_before = len(service.tasks())
        self._sentences: dict[int, int] = {}
        self._killed_at: datetime | None = None

    def submit(self, sentences: int, priority: str = "normal", pause_s: float = PAUSE_S, **options: str) -> int:
        media = self._foxes(sentences, pause_s)
        task_id = self._service.create(media, priority=priority, callback_url=self._receiver.url, **options)
        self._sentences[task_id] = sentences
        return task_id

    def submit_mixed(self, sizes: Sequence[int]) -> None:
        for number, sentences in enumerate(sizes):
            self.submit(sentences, PRIORITIES[number % len(PRIORITIES)])

    def records(self, *, include_result: bool = False) -> dict[int, Record]:
        everything = self._service.tasks(include_result=include_result)
        return {task_id: everything[task_id] for task_id in self._sentences}

    def kill(self, deployment: str) -> None:
        self._killed_at = datetime.now(UTC)
        self._service.kill(deployment)

    def wait_for_the_end(self) -> None:
        eventually(lambda: all(record["finished_at"] for record in self.records().values()), "every task has ended")

    def check_nothing_is_lost(self) -> dict[int, Record]:
        """Waits for every task's end and holds it against what was submitted; the records."""
        self.wait_for_the_end()
        records = self.records(include_result=True)
        for task_id, record in records.items():
            assert record["status"] == "completed", record["error"]
            assert _words(record["result"]["text"]) == " ".join([SENTENCE] * self._sentences[task_id])
            assert 1 <= record["attempts"] <= 3
        self._check_callbacks(records)
        assert len(self._service.tasks()) == self._rows_before + len(self._sentences)
        eventually(lambda: not self._service.media_files(), "the media store is empty")
        return records

    def recovery_s(self, records: dict[int, Record]) -> float:
        """Seconds from the last kill to the last task's end; the kill has to have come before that."""
        assert self._killed_at is not None
        last = max(datetime.fromisoformat(record["finished_at"]) for record in records.values())
        assert last > self._killed_at, "everything had ended before the kill"
        return round((last - self._killed_at).total_seconds(), 1)

    def _check_callbacks(self, records: dict[int, Record]) -> None:
        eventually(lambda: all(map(self._receiver.of, records)), "a callback for each task")
        message_ids = set()
        for task_id, record in records.items():
            for message_id, body in self._receiver.of(task_id):
                message_ids.add(message_id)
                assert (body["status"], body["result"]["text"]) == ("completed", record["result"]["text"])
        assert len(message_ids) == len(records), "one message id for each task, whatever was sent twice"


@pytest.fixture
def batch(service: Service, receiver: Receiver, foxes: Foxes) -> Batch:
    return Batch(service, receiver, foxes)


def _words(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalpha() or character == " ")


def test_a_whisper_replica_in_mid_batch(service: Service, batch: Batch, record_property: RecordProperty) -> None:
    idle_s = service.cpu_s("WhisperReplica")
    batch.submit_mixed([12, 8, 6, 2, 2])
    eventually(lambda: service.cpu_s("WhisperReplica") > idle_s + 0.4, "the replica is decoding")
    batch.kill("WhisperReplica")
    records = batch.check_nothing_is_lost()
    assert {record["attempts"] for record in records.values()} == {1}, "a lost unit is no lost attempt"
    record_property("recovery_s", batch.recovery_s(records))


def test_the_splitter_in_mid_decode(service: Service, batch: Batch, record_property: RecordProperty) -> None:
    long = batch.submit(20, pause_s=27.0)  # ten minutes: long to decode, soon transcribed
    batch.submit_mixed([2, 2])
    eventually(lambda: any("source" not in path.name for path in service.media_files()), "a part is prepared")
    batch.kill("Splitter")
    assert batch.records()[long]["file_duration"] is None, "it was split before the kill"
    records = batch.check_nothing_is_lost()
    assert records[long]["attempts"] >= 2
    record_property("recovery_s", batch.recovery_s(records))


def test_the_dispatcher_while_tasks_run(service: Service, batch: Batch, record_property: RecordProperty) -> None:
    batch.submit_mixed([10, 6, 4, 2])
    eventually(lambda: any(record["status"] == "processing" for record in batch.records().values()), "a task runs")
    batch.kill("Dispatcher")
    records = batch.check_nothing_is_lost()
    assert max(record["attempts"] for record in records.values()) == 2, "nobody held a lease"
    record_property("recovery_s", batch.recovery_s(records))


@pytest.mark.parametrize("deployment", ["Summarizer", "Dispatcher"])
def test_a_summary_outlives_who_writes_it(
    service: Service, batch: Batch, llm: LlmServer, record_property: RecordProperty, deployment: str
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


def test_an_ingress_in_mid_upload(service: Service, batch: Batch, record_property: RecordProperty) -> None:
    batch.submit_mixed([10, 3])
    before = set(service.media_files())
    partial: list[Path] = []

    def body() -> Iterator[bytes]:
        yield b'--edge\r\nContent-Disposition: form-data; name="file_upload"; filename="cut.ogg"\r\n\r\n'
        yield bytes(3 * 1024 * 1024)
        partial.extend(eventually(lambda: _uploading(service, before), "the upload has begun"))
        batch.kill("Ingress")
        yield bytes(3 * 1024 * 1024)
        yield b"\r\n--edge--\r\n"

    _expect_a_broken_upload(service, body())
    batch.submit(2, "high")
    batch.wait_for_the_end()
    _let_be_swept(service, partial)
    records = batch.check_nothing_is_lost()
    assert {record["attempts"] for record in records.values()} == {1}
    record_property("recovery_s", batch.recovery_s(records))


def _uploading(service: Service, before: set[Path]) -> list[Path]:
    return [path for path in set(service.media_files()) - before if path.name.endswith(".partial")]


def _let_be_swept(service: Service, partial: Sequence[Path]) -> None:
    """A killed process can't clean up: housekeeping does, once the file is old, and at each start of a Dispatcher."""
    for path in [*partial, *(path.parent for path in partial)]:
        os.utime(path, (time.time() - LONG_AGO_S,) * 2)
    service.kill("Dispatcher")


def _expect_a_broken_upload(service: Service, body: Iterator[bytes]) -> None:
    try:
        answer = service.client.post(
            "/api/whisper/tasks/create", content=body, headers={"Content-Type": "multipart/form-data; boundary=edge"}
        )
    except httpx.TransportError:
        return
    assert answer.is_server_error, answer.text


def test_three_kills_at_random_moments(service: Service, batch: Batch, record_property: RecordProperty) -> None:
    chance = random.Random(20)
    for deployment in chance.sample(["WhisperReplica", "Splitter", "Dispatcher", "Ingress"], 3):
        batch.submit_mixed([3, 2, 1, 1])
        time.sleep(chance.uniform(0.0, 2.0))
        batch.kill(deployment)
    records = batch.check_nothing_is_lost()
    assert len(records) == 12
    record_property("recovery_s", batch.recovery_s(records))

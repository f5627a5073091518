"""Tasks of which it is known what is to become of them.

Every recording says one sentence many times, so that a chunk that got lost or was done twice shows in the text.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from tests.chaos.service import ChaosService, Receiver, Record
from tests.support import speech
from tests.support.waiting import eventually

SENTENCE = "the quick brown fox jumps over the lazy dog"
PRIORITIES = ("low", "normal", "high")
PAUSE_S = 1.5

Foxes = Callable[[int, float], bytes]


@cache
def foxes(sentences: int, pause_s: float = PAUSE_S) -> bytes:
    """Make a recording of so many sentences of 3 s, each after a pause of so many seconds."""
    fox = next(sample for sample in speech.of_language("en") if sample.name == "quick_brown_fox")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "foxes.ogg"
        speech.encode(speech.join([fox] * sentences, [pause_s] * sentences).audio, path)
        return path.read_bytes()


class Batch:
    """Tasks submitted together with a callback, and what is to become of them."""

    def __init__(self, service: ChaosService, receiver: Receiver) -> None:
        self._service, self._receiver = service, receiver
        self._rows_before = len(service.tasks())
        self._sentences: dict[int, int] = {}
        self._killed_at: datetime | None = None

    def submit(self, sentences: int, priority: str = "normal", pause_s: float = PAUSE_S, **options: str) -> int:
        media = foxes(sentences, pause_s)
        task_id = self._service.create(media, priority=priority, callback_url=self._receiver.url, **options)
        self._sentences[task_id] = sentences
        return task_id

    def submit_mixed(self, sizes: Sequence[int]) -> None:
        for number, sentences in enumerate(sizes):
            self.submit(sentences, PRIORITIES[number % len(PRIORITIES)])

    def records(self, *, include_result: bool = False) -> dict[int, Record]:
        everything = self._service.tasks(include_result=include_result)
        return {task_id: everything[task_id] for task_id in self._sentences}

    @property
    def unfinished(self) -> int:
        return sum(record["finished_at"] is None for record in self.records().values())

    def kill(self, what: str) -> None:
        self._killed_at = datetime.now(UTC)
        self._service.kill(what)

    def wait_for_the_end(self, patience_s: float = 90.0) -> None:
        eventually(lambda: not self.unfinished, "every task has ended", patience_s)

    def check_nothing_is_lost(self, patience_s: float = 90.0) -> dict[int, Record]:
        """Wait for every task's end, compare it with what was submitted, and return the records."""
        self.wait_for_the_end(patience_s)
        records = self.records(include_result=True)
        for task_id, record in records.items():
            assert record["status"] == "completed", record["error"]
            assert words(record["result"]["text"]) == " ".join([SENTENCE] * self._sentences[task_id])
        self._check_callbacks(records)
        assert len(self._service.tasks()) == self._rows_before + len(self._sentences)
        eventually(lambda: not self._service.media_files(), "the media store is empty")
        return records

    def recovery_s(self, records: dict[int, Record]) -> float:
        """Return the seconds from the last kill to the last task's end; the kill must have come before that."""
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


def words(text: str) -> str:
    """Return the text in small letters, without punctuation."""
    return "".join(character for character in text.lower() if character.isalpha() or character == " ")

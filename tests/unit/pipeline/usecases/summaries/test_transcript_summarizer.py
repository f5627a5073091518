from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from pipeline.domain.decoding.transcript import Segment, Transcript, TranscriptInfo
from pipeline.domain.decoding.transcription_options import TaskType, TranscriptionOptions
from pipeline.domain.summaries.summary import SummaryFormat, SummaryOptions
from pipeline.domain.tasks.task import NewTask, Task
from pipeline.errors import (
    InvalidValue,
    LlmAnswerUnusable,
    LlmContextExceeded,
    LlmKeyRefused,
    LlmNotConfigured,
    LlmTimeout,
    NothingSaid,
    TaskNotFinished,
    TaskNotFound,
)
from pipeline.ports import Lease, SummaryJob
from pipeline.settings import LlmPrice, LlmSettings
from pipeline.testing.fake_llm import FakeLanguageModels
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.usecases.summaries.transcript_summarizer import TranscriptSummarizer, chosen_model

OWN = "http://llm.internal/v1"


def transcript(minutes: int = 1, words: str = "one two three four five six seven eight") -> Transcript:
    """Return a transcript with a line of nine words a minute."""
    segments = [
        Segment(number + 1, 0, number * 60.0, number * 60.0 + 5, f" {words}", (), 0.0, -0.2, 1.0, 0.0)
        for number in range(minutes)
    ]
    return Transcript(words, tuple(segments), TranscriptInfo("de", 0.9, minutes * 60.0, 5.0))


def order(task: Task, api_key: str | None = None, **options: object) -> SummaryJob:
    return SummaryJob(task.id, task.media_prefix, SummaryOptions(**options), api_key)  # type: ignore[arg-type]


@dataclass
class SummaryWorld:
    """A summarizer with its fakes, for which a word is a token."""

    settings: LlmSettings = field(default_factory=lambda: LlmSettings(base_url=OWN, model="writer"))
    models: FakeLanguageModels = field(default_factory=FakeLanguageModels)

    def __post_init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryTaskStore(self.clock)
        self.summarizer = TranscriptSummarizer(self.store, self.models, self.settings, self.clock)

    async def task(self, result: Transcript, **options: object) -> Task:
        await self.store.create(NewTask(media_prefix="a", options=TranscriptionOptions(**options)))  # type: ignore[arg-type]
        [task] = await self.store.claim("me", timedelta(seconds=30), 1, (0, 1, 2))
        return await self.store.complete(Lease(task.id, task.fence), result)


async def test_a_short_transcript_takes_one_call() -> None:
    world = SummaryWorld()
    task = await world.task(transcript(2))

    summary = await world.summarizer.summarize(order(task, api_key="sk-mine"))

    assert world.models.opened == [("writer", "sk-mine")]
    [prompt] = world.models.prompts
    assert "[00:01:00] one two" in prompt.material
    assert summary.text == "It was said: [00:01:00] one two three four five six seven eight"
    assert (summary.language, summary.model, summary.completion_id) == ("de", "writer", "fake-1")
    assert (summary.usage.calls, summary.usage.output_tokens) == (1, 5)
    assert (summary.created_at, summary.cost, summary.parts) == (world.clock.now(), None, None)


async def test_a_long_transcript_is_read_in_parts_and_summarised_from_notes() -> None:
    world = SummaryWorld(LlmSettings(base_url=OWN, model="writer", context_tokens=2048, max_output_tokens=500))
    task = await world.task(transcript(400))

    summary = await world.summarizer.summarize(order(task))

    *notes, final = world.models.prompts
    assert len(notes) == 4
    assert [f"part {number} of 4" in prompt.instructions for number, prompt in enumerate(notes, 1)] == [True] * 4
    read = "\n".join(prompt.material for prompt in notes)
    assert all(f"[{minute // 60:02}:{minute % 60:02}:00]" in read for minute in range(400))
    assert "Each line is a note" in final.instructions
    assert summary.text.startswith("It was said: [05:")
    assert summary.usage.calls == 5


async def test_notes_that_are_still_too_long_are_condensed_again() -> None:
    world = SummaryWorld(LlmSettings(base_url=OWN, model="writer", context_tokens=2048, max_output_tokens=500))
    world.models.notes = lambda prompt: "\n".join(prompt.material.splitlines()[1:-1:2])
    task = await world.task(transcript(400))

    summary = await world.summarizer.summarize(order(task))

    parts = [prompt.instructions.partition(" of ")[2].partition(" ")[0] for prompt in world.models.prompts[:-1]]
    assert parts == ["4", "4", "4", "4", "2", "2"]
    assert "Each line is a note" in world.models.prompts[5].instructions
    assert summary.usage.calls == 7


async def test_notes_as_long_as_the_transcript_are_no_notes() -> None:
    world = SummaryWorld(LlmSettings(base_url=OWN, model="writer", context_tokens=2048, max_output_tokens=500))
    world.models.notes = lambda prompt: prompt.material
    task = await world.task(transcript(400))

    with pytest.raises(LlmAnswerUnusable, match="not shorter"):
        await world.summarizer.summarize(order(task))


async def test_a_model_with_a_smaller_context_gets_smaller_pieces() -> None:
    world = SummaryWorld()
    world.models.context_tokens = 1000
    task = await world.task(transcript(400))

    summary = await world.summarizer.summarize(order(task))

    assert summary.text
    assert len(world.models.prompts) > 4


async def test_a_model_with_a_tiny_context_is_given_up() -> None:
    world = SummaryWorld()
    world.models.context_tokens = 100
    task = await world.task(transcript(400))

    with pytest.raises(LlmContextExceeded):
        await world.summarizer.summarize(order(task))


async def test_chapters_are_aligned_with_the_transcript() -> None:
    world = SummaryWorld()
    task = await world.task(transcript(3))

    summary = await world.summarizer.summarize(order(task, summary_format=SummaryFormat.STRUCTURED))

    assert summary.parts is not None
    assert [chapter.start for chapter in summary.parts.chapters] == [0.0, 60.0, 120.0]
    assert summary.text.startswith("Title\n\nIn short.\n\n[00:00:00] one two three")


async def test_the_language_is_that_asked_for_or_that_of_the_transcript() -> None:
    world = SummaryWorld()
    german = await world.task(transcript())
    translated = await world.task(transcript(), task_type=TaskType.TRANSLATE)

    written = [
        (await world.summarizer.summarize(order(task, summary_language=language))).language
        for task, language in ((german, None), (german, "fr"), (translated, None))
    ]

    assert written == ["de", "fr", "en"]
    assert "Write in French." in world.models.prompts[1].instructions


async def test_a_model_with_a_price_has_a_cost() -> None:
    price = LlmPrice(input_per_million=1_000_000, output_per_million=2_000_000)
    world = SummaryWorld(LlmSettings(base_url=OWN, model="writer", prices={"writer": price}))
    task = await world.task(transcript())

    summary = await world.summarizer.summarize(order(task))

    assert summary.usage.input_tokens is not None
    assert summary.cost == summary.usage.input_tokens + 2 * 5


async def test_silence_can_not_be_summarised() -> None:
    world = SummaryWorld()
    task = await world.task(transcript(0))

    with pytest.raises(NothingSaid):
        await world.summarizer.summarize(order(task))
    assert world.models.prompts == []


async def test_there_must_be_a_transcript() -> None:
    world = SummaryWorld()
    task, _ = await world.store.create(NewTask(media_prefix="b"))

    with pytest.raises(TaskNotFinished):
        await world.summarizer.summarize(order(task))
    with pytest.raises(TaskNotFound):
        await world.summarizer.summarize(SummaryJob(task.id + 1, "b", SummaryOptions()))


async def test_one_failing_part_fails_the_summary() -> None:
    world = SummaryWorld(LlmSettings(base_url=OWN, model="refuses-key", context_tokens=2048, max_output_tokens=500))
    task = await world.task(transcript(400))

    with pytest.raises(LlmKeyRefused):
        await world.summarizer.summarize(order(task))


async def test_a_summary_has_a_deadline() -> None:
    world = SummaryWorld(LlmSettings(base_url=OWN, model="writer", deadline_s=1e-9))
    task = await world.task(transcript())

    with pytest.raises(LlmTimeout, match="longer than"):
        await world.summarizer.summarize(order(task))


async def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    world = SummaryWorld(LlmSettings(base_url=OWN, model="writer", context_tokens=2048, max_output_tokens=500))
    task = await world.task(transcript())

    with pytest.raises(InvalidValue, match="too long"):
        await world.summarizer.summarize(order(task, summary_prompt="word " * 1200))


# --- which model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named", "own_key", "model"),
    [
        (LlmSettings(api_key="sk-1"), None, False, "gpt-4o-mini"),
        (LlmSettings(), None, True, "gpt-4o-mini"),
        (LlmSettings(base_url=OWN, model="llama"), None, False, "llama"),
        (LlmSettings(base_url=OWN), "qwen", False, "qwen"),
        (LlmSettings(api_key="sk-1", model="a", allowed_models=("b",)), "b", False, "b"),
        (LlmSettings(api_key="sk-1", model="a", allowed_models=("b",)), "a", False, "a"),
        (LlmSettings(api_key="sk-1", model="a", allowed_models=("b",)), "dear", True, "dear"),
    ],
)
def test_the_model_that_writes(settings: LlmSettings, named: str | None, own_key: bool, model: str) -> None:
    assert chosen_model(settings, named, own_key=own_key) == model


@pytest.mark.parametrize(
    ("settings", "setting"),
    [(LlmSettings(), "MURMURATION_LLM__API_KEY"), (LlmSettings(base_url=OWN), "MURMURATION_LLM__MODEL")],
)
def test_a_missing_setting_is_named(settings: LlmSettings, setting: str) -> None:
    with pytest.raises(LlmNotConfigured, match=setting):
        chosen_model(settings, None, own_key=False)


def test_a_model_that_is_not_allowed_is_refused() -> None:
    with pytest.raises(InvalidValue, match="use b"):
        chosen_model(LlmSettings(api_key="sk-1", allowed_models=("b",)), "dear", own_key=False)

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.tasks.task import Priority, Status, Task, TaskError
from pipeline.errors import ConfigurationError
from pipeline.event_log import LOGGED_PACKAGES, MASK, JsonFormatter, TextFormatter, configure_logging, log_attempt
from pipeline.settings import LoggingSettings

NOW = datetime(2025, 1, 1, 12, tzinfo=UTC)
TASK = Task(
    id=17,
    status=Status.COMPLETED,
    priority=Priority.HIGH,
    engine_name=EngineName.FASTER_WHISPER,
    options=TranscriptionOptions(),
    media_prefix="m",
    created_at=NOW,
    updated_at=NOW,
    attempts=2,
    language="de",
)


@pytest.fixture
def loggers() -> Iterator[None]:
    """Restore the loggers that ``configure_logging`` changes."""
    before = [
        (logger, logger.handlers, logger.level, logger.propagate) for logger in map(logging.getLogger, LOGGED_PACKAGES)
    ]
    yield
    for handler in {
        handler for logger, handlers, *_ in before for handler in logger.handlers if handler not in handlers
    }:
        handler.close()
    for logger, handlers, level, propagate in before:
        logger.handlers = handlers
        logger.setLevel(level)
        logger.propagate = propagate


def event(message: str = "it happened", **extra: Any) -> logging.LogRecord:
    record = logging.LogRecord("pipeline.test", logging.INFO, __file__, 1, message, None, None)
    vars(record).update(extra, created=NOW.timestamp())
    return record


def as_text(**extra: Any) -> str:
    return TextFormatter().format(event(**extra))


def as_json(**extra: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(JsonFormatter().format(event(**extra)))
    return decoded


# --- the shape of a line ----------------------------------------------------------------------------------------------


def test_text_is_one_line_of_values_with_names() -> None:
    line = as_text(task_id=17, host="a.example", note="two words", nothing=None, ratio=0.5, quote='a"b', empty="")

    assert line == (
        "2025-01-01T12:00:00.000+00:00 INFO pipeline.test it happened "
        'task_id=17 host=a.example note="two words" nothing=None ratio=0.5 quote="a\\"b" empty=""'
    )


def test_json_is_one_object_with_the_same_values() -> None:
    assert as_json(task_id=17, note="zwei Wörter", nothing=None, ratio=0.5) == {
        "time": "2025-01-01T12:00:00.000+00:00",
        "level": "INFO",
        "logger": "pipeline.test",
        "message": "it happened",
        "task_id": 17,
        "note": "zwei Wörter",
        "nothing": None,
        "ratio": 0.5,
    }


@given(st.text(), st.text())
def test_an_event_is_one_line_whatever_it_holds(message: str, value: str) -> None:
    for formatter in (TextFormatter(), JsonFormatter()):
        assert "\n" not in formatter.format(event(message, value=value))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_json_gives_a_value_back_as_it_was(value: str) -> None:
    if "://" not in value and "whsec_" not in value.lower() and "sk-" not in value.lower():
        assert as_json(value=value)["value"] == value


def test_an_exception_stays_within_its_line() -> None:
    try:
        raise KeyError("text")
    except KeyError:
        record = event()
        record.exc_info = sys.exc_info()

    line = TextFormatter().format(record)
    assert "\n" not in line
    assert "KeyError: 'text'" in line
    assert "Traceback" in json.loads(JsonFormatter().format(record))["exception"]


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    [
        {"secret": "swordfish"},
        {"api_key": "swordfish"},
        {"Authorization": "Bearer swordfish"},
        {"password": "swordfish"},
        {"value": SecretStr("swordfish")},
        {"url": "mysql+asyncmy://user:swordfish@db/name"},
        {"header": "Authorization: Bearer swordfish"},
        {"value": "whsec_swordfish=="},
        {"value": "sk-swordfish123"},
        {"value": {"nested": "https://swordfish@host/"}},
        {"message": "cannot connect to mysql://user:swordfish@db/name"},
    ],
)
def test_secrets_are_never_written(extra: dict[str, Any]) -> None:
    message = extra.pop("message", "it happened")

    for formatter in (TextFormatter(), JsonFormatter()):
        line = formatter.format(event(message, **extra))
        assert "swordfish" not in line
        assert MASK in line


def test_a_secret_in_an_exception_is_never_written() -> None:
    try:
        raise OSError("://".join(["mysql", "user:swordfish@db/name"]))  # keeps the secret out of the source line
    except OSError:
        record = event()
        record.exc_info = sys.exc_info()

    line = TextFormatter().format(record)
    assert "OSError: mysql://***@db/name" in line


def test_what_is_no_secret_stays() -> None:
    extra = {"url": "https://host:8443/a@b", "prompt_tokens": 12, "host": "db", "task": "task-17"}

    assert as_json(**extra) == as_json() | extra


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("loggers")
def test_the_format_and_level_asked_for_are_used(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LoggingSettings(format="json", level="WARNING"))

    logging.getLogger("pipeline.usecases.x").info("hidden")
    logging.getLogger("deployments.x").warning("shown", extra={"task_id": 1})

    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["task_id"] == 1


@pytest.mark.usefixtures("loggers")
def test_configuring_twice_does_not_double_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LoggingSettings())
    configure_logging(LoggingSettings())

    logging.getLogger("pipeline.x").info("once")

    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.usefixtures("loggers")
def test_other_loggers_are_left_alone() -> None:
    before = logging.getLogger().handlers[:]

    configure_logging(LoggingSettings())

    assert logging.getLogger().handlers == before


# --- the line of an attempt -------------------------------------------------------------------------------------------


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in vars(logging.makeLogRecord({}))}


def test_an_attempt_is_one_line_with_its_figures(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipeline")

    log_attempt(TASK, {"splitting": 1.5, "transcribing": 8.5}, 120.0)

    (record,) = caplog.records
    assert (record.message, record.levelname) == ("attempt", "INFO")
    assert fields(record) == {
        "task_id": 17,
        "attempt": 2,
        "outcome": "completed",
        "priority": "high",
        "language": "de",
        "audio_s": 120.0,
        "wall_s": 10.0,
        "rtfx": 12.0,
        "splitting_s": 1.5,
        "transcribing_s": 8.5,
    } | {name: value for name, value in fields(record).items() if name in ("message", "taskName")}


def test_a_failed_attempt_says_why_and_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    failed = replace(TASK, status=Status.FAILED, error=TaskError("no_audio_stream", "There is no sound in it."))

    log_attempt(failed, {}, 0.0)

    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert fields(record)["error"] == "no_audio_stream"
    assert "rtfx" not in fields(record)


def test_outcome_and_time_can_be_given(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipeline")

    log_attempt(TASK, {"splitting": 5.0, "transcribing": 5.0}, 60.0, outcome="lease_lost", wall_s=6.0)

    (record,) = caplog.records
    assert (fields(record)["outcome"], fields(record)["wall_s"], fields(record)["rtfx"]) == ("lease_lost", 6.0, 10.0)


# --- the file ---------------------------------------------------------------------------------------------------------


def lines(file: Path) -> list[str]:
    return file.read_text("utf-8").splitlines()


def written(file: Path) -> list[str]:
    """Return all lines of the file and of the rotated ones, oldest first."""
    aside = sorted(file.parent.glob(f"{file.name}.*"), key=lambda path: -int(path.suffix[1:]))
    return [line for path in (*aside, file) for line in lines(path)]


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_is_written_to_a_file_in_either_form(
    tmp_path: Path, loggers: None, capsys: pytest.CaptureFixture[str], form: Literal["text", "json"]
) -> None:
    file = tmp_path / "logs" / "murmuration.log"
    configure_logging(LoggingSettings(format=form, file=file))
    logging.getLogger("deployments.replicas.ingress_replica").info("it happened", extra={"task_id": 7})
    logging.getLogger("pipeline.media").warning("twice")
    assert lines(file) == capsys.readouterr().err.splitlines()
    assert [("it happened" in line, "twice" in line) for line in lines(file)] == [(True, False), (False, True)]
    if form == "json":
        assert [json.loads(line).get("task_id") for line in lines(file)] == [7, None]
    assert file.stat().st_mode & 0o077 == 0


def test_a_full_file_is_put_aside_and_the_oldest_goes(tmp_path: Path, loggers: None) -> None:
    file = tmp_path / "murmuration.log"
    configure_logging(LoggingSettings(file=file, file_max_bytes=4096, file_backups=2))
    for number in range(400):
        logging.getLogger("pipeline").info("event", extra={"number": number})
    files = sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("."))
    assert files == ["murmuration.log", "murmuration.log.1", "murmuration.log.2"]
    assert all((tmp_path / name).stat().st_size < 4096 + 100 for name in files)
    numbers = [int(line.rpartition("=")[2]) for line in written(file)]
    assert numbers == list(range(numbers[0], 400))


WRITER = """
import logging, sys
from pathlib import Path
from pipeline.event_log import configure_logging
from pipeline.settings import LoggingSettings
configure_logging(LoggingSettings(file=Path(sys.argv[1]), file_max_bytes=8192, file_backups=1000))
for number in range(300):
    logging.getLogger("pipeline").info("event", extra={"number": number, "writer": sys.argv[2]})
"""


def test_processes_share_a_file_and_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "murmuration.log"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(file), name], stderr=subprocess.DEVNULL) for name in "ab"
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    found = [line.partition("event ")[2] for line in written(file)]
    assert sorted(found) == sorted(f"number={number} writer={name}" for number in range(300) for name in "ab")


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_reaches_the_file(tmp_path: Path, loggers: None, form: Literal["text", "json"]) -> None:
    key = "mur_LIPeo5D_JKJVkKWXPtauKzAcXvSiATRGiT1hqLblRR4"
    file = tmp_path / "murmuration.log"
    configure_logging(LoggingSettings(format=form, file=file))
    log = logging.getLogger("pipeline.store")
    log.info("called with Authorization: Bearer %s", key, extra={"authorization": f"Bearer {key}", "note": key})
    log.info("the key %s, and key=%s", key, key, extra={"headers": {"Authorization": f"Bearer {key}"}})
    log.info("mysql+asyncmy://ann:swordfish@db:3306/tasks", extra={"url": "async+redis://:swordfish@cache"})
    log.info("sent", extra={"api_key": "swordfish", "password": "swordfish", "callback_secret": "swordfish"})
    try:
        raise ValueError(f"refused mysql://ann:swordfish@db with Bearer {key} and sk-swordfish-swordfish")
    except ValueError:
        log.exception("it failed")
    text = file.read_text("utf-8")
    assert text.count(MASK) >= 12
    assert "swordfish" not in text
    assert key[4:] not in text


@pytest.mark.parametrize("place", ["taken/murmuration.log", ""])
def test_a_file_that_can_not_be_written_ends_the_start(tmp_path: Path, loggers: None, place: str) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(ConfigurationError, match=r"logging\.file can't be written"):
        configure_logging(LoggingSettings(file=tmp_path / place))


def test_a_file_is_named_from_the_root() -> None:
    with pytest.raises(ValueError, match="absolute"):
        LoggingSettings(file=Path("murmuration.log"))

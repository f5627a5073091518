import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr

import pipeline.settings
from pipeline.errors import ConfigurationError
from pipeline.settings import BatchSettings, Section, Settings, load_settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("MURMURATION_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.yaml"


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from sections(field.annotation)


SECTIONS = [*sections(Settings), BatchSettings]


def test_the_defaults_stand_on_their_own() -> None:
    settings = load_settings()

    assert settings.data_dir.is_absolute()
    assert settings.asr.model is None
    assert settings.callback.delays_s == (30.0, 120.0, 600.0, 3600.0)


def test_a_file_says_what_differs(file: Path) -> None:
    file.write_text("asr:\n  model: small\nnetwork:\n  allow_private_hosts: [10.0.0.0/8, files.internal]\n")

    settings = load_settings(file)

    assert settings.asr.model == "small"
    assert settings.asr.engine == "faster_whisper"
    assert settings.network.allow_private_hosts == ("10.0.0.0/8", "files.internal")


@pytest.mark.parametrize("text", ["", "# nothing but a remark\n", "---\n"])
def test_an_empty_file_changes_nothing(file: Path, text: str) -> None:
    file.write_text(text)

    assert load_settings(file) == load_settings()


def test_the_environment_goes_before_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("asr: {model: small, cpu_threads: 3}\nlogging: {format: json}\n")
    monkeypatch.setenv("MURMURATION_ASR__MODEL", "tiny.en")
    monkeypatch.setenv("MURMURATION_CALLBACK__DELAYS_S", "[1, 2]")

    settings = load_settings(file)

    assert (settings.asr.model, settings.asr.cpu_threads) == ("tiny.en", 3)
    assert settings.logging.format == "json"
    assert settings.callback.delays_s == (1.0, 2.0)


def test_overrides_go_before_the_file(file: Path, tmp_path: Path) -> None:
    file.write_text("data_dir: /somewhere\n")

    assert load_settings(file, data_dir=tmp_path).data_dir == tmp_path


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("asr: {modle: small}", "asr.modle"),
        ("assr: {model: small}", "assr"),
        ("asr: {cpu_threads: 0}", "asr.cpu_threads"),
        ("asr: {window: long}", "asr.window"),
        ("split: {max_chunk_s: 31}", "split.max_chunk_s"),
        ("asr: small", "asr"),
        ("callback: {timeout_s: soon, concurrency: 0}", "callback.concurrency"),
        ("- asr", "names and values"),
        ("just text", "names and values"),
        ("1: 2", "names and values"),
        ("asr: [unclosed", "not YAML"),
    ],
)
def test_what_cannot_be_is_refused_in_words(file: Path, text: str, named: str) -> None:
    file.write_text(text)

    with pytest.raises(ConfigurationError) as caught:
        load_settings(file)
    assert named in caught.value.message
    assert "Traceback" not in caught.value.message


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("MURMURATION_ASR__MODLE", "small", "asr.modle"),
        ("MURMURATION_ASR__CPU_THREADS", "many", "asr.cpu_threads"),
        ("MURMURATION_CALLBACK__DELAYS_S", "30,120", '"callback"'),
        ("MURMURATION_ASR", "small", '"asr"'),
    ],
)
def test_the_environment_is_held_to_the_same(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert named in caught.value.message


def test_a_file_that_cannot_be_read_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be read: No such file"):
        load_settings(tmp_path / "missing.yaml")


def test_a_file_that_is_not_text_is_refused_in_words(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00asr")

    with pytest.raises(ConfigurationError):
        load_settings(file)


def test_the_data_folder_must_be_absolute(file: Path) -> None:
    file.write_text("data_dir: here\n")

    with pytest.raises(ConfigurationError, match="absolute"):
        load_settings(file)


def test_database_and_media_lie_in_the_data_folder_unless_told_otherwise(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)

    assert settings.database_url == f"sqlite+aiosqlite:///{tmp_path}/tasks.db"
    assert settings.media_url == f"file://{tmp_path}/media"


def test_database_and_media_can_lie_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MURMURATION_DATABASE__URL", "mysql+asyncmy://user:swordfish@db/murmuration")
    monkeypatch.setenv("MURMURATION_MEDIA__URL", "s3://bucket/folder")

    settings = load_settings()

    assert settings.database_url == "mysql+asyncmy://user:swordfish@db/murmuration"
    assert settings.media_url == "s3://bucket/folder"
    assert "swordfish" not in repr(settings)


def test_a_secret_is_never_shown_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MURMURATION_CALLBACK__SECRET", "whsec_swordfish")
    monkeypatch.setenv("MURMURATION_CALLBACK__CONCURRENCY", "0")

    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert "swordfish" not in caught.value.message


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_setting_is_described(section: type[BaseModel]) -> None:
    missing = [
        name
        for name, field in section.model_fields.items()
        if not field.description and not (isinstance(field.annotation, type) and issubclass(field.annotation, Section))
    ]

    assert missing == []
    assert (section.__doc__ or "").strip()


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_a_number_with_a_unit_says_so_in_its_name(section: type[BaseModel]) -> None:
    """Durations end in ``_s`` or ``_ms``, sizes in ``_bytes``, since a description alone is easily overlooked."""
    for name, field in section.model_fields.items():
        description = (field.description or "").lower()
        if field.annotation in (float, int) and "in seconds" in description:
            assert name.endswith(("_s", "_ms"))


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_secrets_are_of_a_type_that_hides_them(section: type[BaseModel]) -> None:
    for name, field in section.model_fields.items():
        is_secret = any(word in name.removesuffix("_tokens") for word in ("secret", "password", "token", "key"))
        if is_secret and name != "keys":  # those are hashes
            assert SecretStr.__name__ in str(field.annotation)


def test_each_section_has_a_module_of_its_name() -> None:
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            assert field.annotation.__module__ == f"pipeline.settings.{name}"
            assert field.annotation.__name__ in pipeline.settings.__all__


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().asr.model = "small"  # type: ignore[misc]


def test_a_sites_cookies_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text("crawl:\n  platforms:\n    tiktok: {user_agent: Mine/1}\n")
    monkeypatch.setenv("MURMURATION_CRAWL__PLATFORMS__TIKTOK__COOKIES", "# Netscape HTTP Cookie File\n")

    tiktok = load_settings(file).crawl.platforms["tiktok"]

    assert tiktok.cookies == SecretStr("# Netscape HTTP Cookie File\n")
    assert tiktok.user_agent == "Mine/1"
    assert "Netscape" not in repr(tiktok)

"""The root of the settings, which holds every section."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import platformdirs
from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline.settings.asr import AsrSettings
from pipeline.settings.auth import AuthSettings
from pipeline.settings.callback import CallbackSettings
from pipeline.settings.confinement import ConfinementSettings
from pipeline.settings.connections import ConnectionSettings
from pipeline.settings.crawl import CrawlSettings
from pipeline.settings.database import DatabaseSettings
from pipeline.settings.dispatch import DispatchSettings
from pipeline.settings.http import HttpSettings
from pipeline.settings.llm import LlmSettings
from pipeline.settings.logging import LoggingSettings
from pipeline.settings.media import MediaSettings
from pipeline.settings.network import NetworkSettings
from pipeline.settings.split import SplitSettings
from pipeline.settings.tracing import TracingSettings
from pipeline.settings.vad import VadSettings


class FileAccess(StrEnum):
    """The users that may read the service's files."""

    OWNER = "owner"
    GROUP = "group"


class Settings(BaseSettings):
    """All settings of the service's behaviour. They are loaded once, in ``deployments.app.build``."""

    model_config = SettingsConfigDict(
        env_prefix="MURMURATION_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    data_dir: Path = Field(default_factory=lambda: platformdirs.user_data_path("murmuration"))
    """Absolute path of the folder for the database and the media, unless their own settings say otherwise."""
    file_access: FileAccess = FileAccess.OWNER
    """Access to the database, the media, uploads and the log: for the service's user alone, or also for its group, if
    several users share a media folder. Folders get mode 0700 or 0770, files 0600 or 0660."""
    database: DatabaseSettings = DatabaseSettings()
    media: MediaSettings = MediaSettings()
    vad: VadSettings = VadSettings()
    split: SplitSettings = SplitSettings()
    asr: AsrSettings = AsrSettings()
    dispatch: DispatchSettings = DispatchSettings()
    callback: CallbackSettings = CallbackSettings()
    llm: LlmSettings = LlmSettings()
    network: NetworkSettings = NetworkSettings()
    crawl: CrawlSettings = CrawlSettings()
    confinement: ConfinementSettings = ConfinementSettings()
    http: HttpSettings = HttpSettings()
    connections: ConnectionSettings = ConnectionSettings()
    auth: AuthSettings = AuthSettings()
    logging: LoggingSettings = LoggingSettings()
    tracing: TracingSettings = TracingSettings()

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL: the configured one, else that of a file in ``data_dir``."""
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        return f"sqlite+aiosqlite:///{self.data_dir / 'tasks.db'}"

    @property
    def media_url(self) -> str:
        """The fsspec URL: the configured one, else that of a folder in ``data_dir``."""
        return self.media.url or (self.data_dir / "media").as_uri()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment before the file."""
        return env_settings, init_settings

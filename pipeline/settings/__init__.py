"""Typed settings, from a YAML file under ``configs`` and from ``MURMURATION_…`` variables, which override the file.

Each setting has exactly one place. The number of replicas is in ``serve_config.yaml``, their behaviour here, and what
may change without a restart (``BatchSettings``) in ``user_config``. Secrets come from the environment only. The name of
a variable is the path of the field, joined by two underscores: ``MURMURATION_ASR__MODEL=small``.

Each section of the file has a module of its name: ``pipeline.settings.asr`` has the settings below ``asr:``.
"""

from pipeline.settings.asr import AsrSettings
from pipeline.settings.auth import AuthSettings, KeySettings
from pipeline.settings.batch import BatchSettings
from pipeline.settings.callback import CallbackSettings
from pipeline.settings.confinement import ConfinementSettings
from pipeline.settings.connections import ConnectionSettings
from pipeline.settings.crawl import CrawlSettings, PlatformSettings
from pipeline.settings.database import DatabaseSettings
from pipeline.settings.dispatch import DispatchSettings
from pipeline.settings.http import HttpSettings
from pipeline.settings.llm import LlmPrice, LlmSettings
from pipeline.settings.loading import load_settings
from pipeline.settings.logging import LoggingSettings
from pipeline.settings.media import MediaSettings
from pipeline.settings.network import NetworkSettings
from pipeline.settings.root import FileAccess, Settings
from pipeline.settings.section import Section
from pipeline.settings.split import SplitSettings
from pipeline.settings.tracing import TracingSettings
from pipeline.settings.vad import VadSettings

__all__ = [
    "AsrSettings",
    "AuthSettings",
    "BatchSettings",
    "CallbackSettings",
    "ConfinementSettings",
    "ConnectionSettings",
    "CrawlSettings",
    "DatabaseSettings",
    "DispatchSettings",
    "FileAccess",
    "HttpSettings",
    "KeySettings",
    "LlmPrice",
    "LlmSettings",
    "LoggingSettings",
    "MediaSettings",
    "NetworkSettings",
    "PlatformSettings",
    "Section",
    "Settings",
    "SplitSettings",
    "TracingSettings",
    "VadSettings",
    "load_settings",
]

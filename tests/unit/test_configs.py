"""The shipped configuration: every file loads, and every key means something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from deployments.config_check import unknown_keys
from pipeline.settings import BatchSettings, load_settings
from tests.support.processes import ROOT

SERVE_FILES = [ROOT / "serve_config.yaml", *sorted((ROOT / "configs").glob("serve.*.yaml"))]
SETTINGS_FILES = sorted(set((ROOT / "configs").glob("*.yaml")) - set(SERVE_FILES))


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def deployments(path: Path) -> dict[str, dict[str, Any]]:
    [application] = read(path)["applications"]
    return {deployment["name"]: deployment for deployment in application["deployments"]}


def test_both_machines_have_a_settings_file() -> None:
    assert {path.stem for path in SETTINGS_FILES} >= {"cpu", "gpu"}


@pytest.mark.parametrize("path", SETTINGS_FILES, ids=lambda path: path.stem)
def test_a_settings_file_loads(path: Path) -> None:
    assert load_settings(path).asr.engine == "faster_whisper"


@pytest.mark.parametrize("path", SETTINGS_FILES, ids=lambda path: path.stem)
def test_a_settings_file_holds_no_secret(path: Path) -> None:
    settings = load_settings(path)

    assert settings.database.url is None
    assert settings.callback.secret is None


def test_the_gpu_file_asks_for_the_large_model_and_the_cpu_file_leaves_it_to_the_device() -> None:
    assert load_settings(ROOT / "configs" / "gpu.yaml").asr.model == "large-v3-turbo"
    assert load_settings(ROOT / "configs" / "cpu.yaml").asr.model is None


@pytest.mark.parametrize("path", SERVE_FILES, ids=lambda path: path.stem)
def test_serve_knows_every_key(path: Path) -> None:
    assert unknown_keys(read(path)) == []
    ServeDeploySchema.model_validate(read(path))


@pytest.mark.parametrize("path", SERVE_FILES, ids=lambda path: path.stem)
def test_a_serve_config_names_a_settings_file_that_exists(path: Path) -> None:
    [application] = read(path)["applications"]

    assert application["name"] == "murmuration"
    assert (ROOT / "configs" / f"{application['args']['config']}.yaml").is_file()


@pytest.mark.parametrize("path", SERVE_FILES, ids=lambda path: path.stem)
def test_batch_settings_in_user_config_exist(path: Path) -> None:
    BatchSettings(**deployments(path)["WhisperReplica"]["user_config"])


def test_the_default_service_is_for_this_machine_alone() -> None:
    assert read(ROOT / "serve_config.yaml")["http_options"]["host"] == "127.0.0.1"

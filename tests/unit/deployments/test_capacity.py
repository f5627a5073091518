"""The Serve configs accept the chunks that their settings send: a queue at a replica would ignore priorities."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from deployments.wiring import settings_file
from pipeline.settings import Settings, load_settings
from tests.support.processes import ROOT

CONFIGS = ("serve_config.yaml", "configs/serve.cpu.yaml", "configs/serve.gpu.yaml", "configs/kuberay/rayservice.yaml")


def application(name: str) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / name).read_text("utf-8"))
    if "spec" in content:
        content = yaml.safe_load(content["spec"]["serveConfigV2"])
    found: dict[str, Any] = content["applications"][0]
    return found


def taken_at_once(deployment: dict[str, Any]) -> int:
    replicas: int = deployment["autoscaling_config"]["min_replicas"]
    most: int = deployment["max_ongoing_requests"]
    return replicas * most


def settings_of(app: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MURMURATION_DATA_DIR", "/nowhere")
    return load_settings(settings_file(app.get("args", {}).get("config", "cpu")))


@pytest.mark.parametrize("name", CONFIGS)
def test_whatever_is_sent_is_taken_in(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = application(name)
    deployments = {each["name"]: each for each in app["deployments"]}
    settings = settings_of(app, monkeypatch)
    assert settings.dispatch.max_concurrent_splits <= taken_at_once(deployments["Splitter"])
    assert settings.dispatch.max_concurrent_crawls <= taken_at_once(deployments["Crawler"])
    summaries = settings.llm.max_active_summaries + settings.llm.max_waited_summaries
    assert summaries <= deployments["Summarizer"]["max_ongoing_requests"]

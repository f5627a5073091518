from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.deploy import deploy, main, read_checked_config
from pipeline.errors import ConfigurationError
from tests.support.processes import ROOT

CONFIG = {"applications": [{"name": "murmuration"}]}


class Dashboard:
    """Serve's REST interface with a given sequence of states."""

    def __init__(self, *states: str, message: str = "") -> None:
        self._states: Iterator[str] = iter(states)
        self._message = message
        self.deployed: list[Any] = []

    def deploy_applications(self, config: Any) -> None:
        self.deployed.append(config)

    def get_serve_details(self) -> dict[str, Any]:
        return {"applications": {"murmuration": {"status": next(self._states), "message": self._message}}}


def at_once(_seconds: float) -> None:
    pass


def test_it_waits_until_the_application_runs(capsys: pytest.CaptureFixture[str]) -> None:
    dashboard = Dashboard("DEPLOYING", "DEPLOYING", "RUNNING")
    deploy(dashboard, CONFIG, 60.0, at_once)
    assert dashboard.deployed == [CONFIG]
    assert capsys.readouterr().out == "murmuration: DEPLOYING\nmurmuration: RUNNING\n"


def test_it_says_why_an_application_failed() -> None:
    with pytest.raises(RuntimeError, match=r"murmuration: DEPLOY_FAILED\. There is no settings file"):
        deploy(Dashboard("DEPLOYING", "DEPLOY_FAILED", message="There is no settings file"), CONFIG, 60.0, at_once)


def test_of_a_traceback_only_its_end_is_shown() -> None:
    message = "Traceback (most recent call last):\n  File …\npipeline.errors.ConfigurationError: Start a GPU node.\n\n"
    with pytest.raises(RuntimeError, match=r"^murmuration: DEPLOY_FAILED\. Start a GPU node\.$"):
        deploy(Dashboard("DEPLOY_FAILED", message=message), CONFIG, 60.0, at_once)


def test_it_does_not_wait_for_ever() -> None:
    with pytest.raises(TimeoutError, match="After 2 s still murmuration: DEPLOYING"):
        deploy(Dashboard("DEPLOYING", "DEPLOYING", "DEPLOYING"), CONFIG, 2.0, at_once)


def test_a_config_is_checked_before_serve_is_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "typo.yaml").write_text("applications: [{name: a, import_path: 'm:a', deploymnts: []}]")
    assert main([str(tmp_path / "typo.yaml"), "-a", "http://127.0.0.1:9"]) == 1
    assert "deploymnts (deployments?)" in capsys.readouterr().err
    with pytest.raises(ConfigurationError):
        read_checked_config(tmp_path / "gone.yaml")


def test_the_shipped_config_passes() -> None:
    assert [
        application["name"] for application in read_checked_config(ROOT / "configs" / "serve.gpu.yaml")["applications"]
    ] == ["murmuration"]

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployments.config_check import config_of, main, read_config, refuse_unknown_keys, unknown_keys
from pipeline.errors import ConfigurationError


def config(**deployment: Any) -> dict[str, Any]:
    return {"applications": [{"name": "app", "import_path": "m:a", "deployments": [{"name": "Ingress", **deployment}]}]}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({}, []),
        (config(num_replicas=2), []),
        (config(numreplicas=2), ["applications.app.deployments.Ingress.numreplicas (num_replicas?)"]),
        (config(qwertz=2), ["applications.app.deployments.Ingress.qwertz"]),
        (config(autoscaling_config={"min_replicas": 0, "max_replica": 2}),
         ["applications.app.deployments.Ingress.autoscaling_config.max_replica (max_replicas?)"]),
        (config(ray_actor_options={"numcpus": 1}),
         ["applications.app.deployments.Ingress.ray_actor_options.numcpus (num_cpus?)"]),
        (config(user_config={"anything": 1}), []),
        ({"application": []}, ["application (applications?)"]),
        ({"http_options": {"hosts": "0.0.0.0"}}, ["http_options.hosts (host?)"]),
        ({"applications": [{"args": {"anything": 1}, "importpath": 1}]}, ["applications.0.importpath (import_path?)"]),
        ({"http_options": None, "applications": None}, []),
    ],
)  # fmt: skip
def test_names_what_serve_would_ignore(content: dict[str, Any], found: list[str]) -> None:
    assert unknown_keys(content) == found


def test_the_command_names_what_serve_would_ignore(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("applications: [{name: a, deployments: [{name: D, numreplicas: 2}]}]")
    assert main([str(file)]) == 1
    assert "numreplicas (num_replicas?)" in capsys.readouterr().err
    assert main([str(Path(__file__).parents[3] / "serve_config.yaml")]) == 0


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (["/venv/bin/python", "/venv/bin/serve", "run", "serve_config.yaml"], "serve_config.yaml"),
        (["python", "-m", "ray.serve.scripts", "run", "/etc/s.yml", "--non-blocking"], "/etc/s.yml"),
        (["python", "/venv/bin/serve", "run", "deployments.app:build"], None),
        (["python", "/venv/bin/serve", "deploy", "serve_config.yaml"], None),
        (["python", "/x/ray/dashboard/agent.py", "run.yaml"], None),
        ([], None),
    ],
)
def test_the_file_of_a_serve_run_is_known_by_its_command(command: list[str], file: str | None, tmp_path: Path) -> None:
    assert config_of(command, tmp_path) == (file and tmp_path / file)


def test_a_service_does_not_start_under_a_config_that_serve_would_only_half_read(tmp_path: Path) -> None:
    (tmp_path / "typo.yaml").write_text("applications: [{name: a, deployments: [{name: D, numreplicas: 2}]}]")
    (tmp_path / "good.yaml").write_text("applications: [{name: a, deployments: [{name: D, num_replicas: 2}]}]")
    refuse_unknown_keys([(["serve", "run", "good.yaml"], tmp_path), (["serve", "run", "gone.yaml"], tmp_path)])
    with pytest.raises(ConfigurationError, match=r"typo.yaml has keys .*numreplicas \(num_replicas\?\)"):
        refuse_unknown_keys([(["serve", "run", "typo.yaml"], tmp_path)])


@pytest.mark.parametrize("content", ["- a list", "a: [", "\0"])
def test_what_is_no_config_is_refused_in_a_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text(content)
    with pytest.raises(ConfigurationError):
        read_config(tmp_path / "serve.yaml")

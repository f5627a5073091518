from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployments.config_check import main, unknown_keys


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


def test_the_command_names_what_serve_would_ignore(tmp_path, capsys):
    file = tmp_path / "serve.yaml"
    file.write_text("applications: [{name: a, deployments: [{name: D, numreplicas: 2}]}]")
    assert main([str(file)]) == 1
    assert "numreplicas (num_replicas?)" in capsys.readouterr().err
    assert main([str(Path(__file__).parents[3] / "serve_config.yaml")]) == 0

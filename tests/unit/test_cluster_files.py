"""Files that can't be run here, compared with the schema that their reader publishes and with the files they repeat."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose
from ray._common.utils import import_attr
from ray.autoscaler._private.util import prepare_config, validate_config

from deployments.config_check import unknown_keys
from deployments.front.proxies import CLIENT_TIMEOUT_S, bounded
from pipeline.settings import ConnectionSettings, load_settings
from tests.support.processes import ROOT

NODE_TYPES = ("head", "cpu", "gpu")
BOUNDS = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.front.proxies:bounded",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(ConnectionSettings().max_head_bytes),
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(CLIENT_TIMEOUT_S),
}
"""What bounds requests in HAProxy and behind it, as the Ingress does by default."""


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return content


def whisper(serve: dict[str, Any]) -> dict[str, Any]:
    [application] = serve["applications"]
    return next(deployment for deployment in application["deployments"] if deployment["name"] == "WhisperReplica")


def shell(command: str, **environment: str) -> dict[str, str]:
    """Return the environment after a command; fail if the shell complains."""
    done = subprocess.run(
        ["sh", "-euc", f"{command} && env"],
        env={"PATH": "/usr/bin:/bin", "HOME": "/home/ray", **environment},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert not done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


# --- Ray's cluster launcher


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster.onprem.yaml"])
def test_the_cluster_launcher_takes_the_file(name: str) -> None:
    validate_config(prepare_config(read(name)))


def test_only_gpu_nodes_have_gpus_and_they_have_nothing_else() -> None:
    types = read("cluster.yaml")["available_node_types"]
    assert tuple(types) == NODE_TYPES
    assert types["gpu"]["resources"] == {"CPU": 0, "GPU": 1}
    assert types["gpu"]["min_workers"] == 0
    assert types["head"]["resources"] == {"CPU": 0}


def test_hosts_of_ones_own_have_no_node_types() -> None:
    assert "available_node_types" not in read("cluster.onprem.yaml")


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster.onprem.yaml"])
def test_every_node_starts_in_the_production_environment(name: str) -> None:
    file = read(name)
    for commands in (file["head_start_ray_commands"], file["worker_start_ray_commands"]):
        assert "configs/production.env && " in commands[-1]


# --- the environment


def test_the_environment_can_be_sourced_without_secrets() -> None:
    environment = shell(". configs/production.env", MURMURATION_SECRETS="/nowhere")
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == "/home/ray/.ray/auth_token"
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert environment.items() >= BOUNDS.items()
    assert "RAY_gcs_storage" not in environment


def test_what_a_node_writes_is_its_users_alone(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o644)
    made = tmp_path / "made"
    shell(f". configs/production.env && touch {made}", MURMURATION_SECRETS="/nowhere", RAY_AUTH_TOKEN_PATH=str(token))
    assert [oct(file.stat().st_mode & 0o777) for file in (token, made)] == ["0o600", "0o600"]


def test_the_bounds_are_found_by_their_name() -> None:
    assert import_attr(BOUNDS["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]) is bounded


def test_secrets_are_read_from_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "secrets.env").write_text("MURMURATION_DATABASE__URL='mysql+asyncmy://u:p@db/m'\n")
    environment = shell(
        ". configs/production.env", MURMURATION_SECRETS=str(tmp_path / "secrets.env"), MURMURATION_GCS_FOLDER="/gcs"
    )
    assert environment["MURMURATION_DATABASE__URL"] == "mysql+asyncmy://u:p@db/m"
    assert (environment["RAY_gcs_storage"], environment["RAY_gcs_storage_path"]) == ("rocksdb", "/gcs")


def test_the_node_script_is_a_script() -> None:
    subprocess.run(["bash", "-n", str(ROOT / "configs" / "node_setup.sh")], check=True)
    refused = subprocess.run([str(ROOT / "configs" / "node_setup.sh"), "tpu"], capture_output=True, text=True)
    assert (refused.returncode, refused.stderr.split()[0]) == (2, "usage:")


# --- Serve


@pytest.mark.parametrize("name", ["serve_config.yaml", "configs/serve.cpu.yaml", "configs/serve.gpu.yaml"])
def test_a_replica_has_time_for_its_longest_unit(name: str) -> None:
    serve = read(name)
    batch, settings = whisper(serve)["user_config"]["max_batch_size"], load_settings(ROOT / "configs" / "gpu.yaml")
    assert whisper(serve)["graceful_shutdown_timeout_s"] >= batch * settings.split.max_chunk_s


def test_the_gpu_fleet_may_go_to_zero_and_the_default_one_may_not() -> None:
    scaling = whisper(read("configs/serve.gpu.yaml"))["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["initial_replicas"]) == (0, 1)
    assert "autoscaling_config" not in whisper(read("serve_config.yaml"))  # the builder's: at least 1


# --- KubeRay


def test_kuberay_runs_the_gpu_application() -> None:
    manifest = read("configs/kuberay/rayservice.yaml")
    inline = yaml.safe_load(manifest["spec"]["serveConfigV2"])
    assert inline == read("configs/serve.gpu.yaml")
    assert unknown_keys(inline) == []


@pytest.mark.parametrize("group", range(3))
def test_kuberay_bounds_requests_and_asks_for_a_token(group: int) -> None:
    cluster = read("configs/kuberay/rayservice.yaml")["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    [container] = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]][group]["template"]["spec"]["containers"]
    if "env" in container:
        assert {entry["name"]: entry["value"] for entry in container["env"]}.items() >= BOUNDS.items()
    else:
        assert "serve" not in {port["name"] for port in container.get("ports", [])}


def test_kuberay_gives_a_gpu_pod_time_to_finish() -> None:
    manifest = read("configs/kuberay/rayservice.yaml")["spec"]
    gpu = next(group for group in manifest["rayClusterConfig"]["workerGroupSpecs"] if group["groupName"] == "gpu")
    grace_s = gpu["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s > whisper(read("configs/serve.gpu.yaml"))["graceful_shutdown_timeout_s"]
    assert gpu["rayStartParams"] == {"num-cpus": "0"}


@pytest.mark.parametrize("group", range(3))
def test_kubernetes_knows_every_field_of_the_pods(group: int) -> None:
    cluster = read("configs/kuberay/rayservice.yaml")["spec"]["rayClusterConfig"]
    template = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]][group]["template"]
    assert list(unknown_fields(template, "V1PodTemplateSpec")) == []


def unknown_fields(value: Any, kind: str) -> Any:
    """Yield the fields that the Kubernetes client's models don't know, as (model, field)."""
    from kubernetes.client import models

    if kind.startswith("list["):
        for item in value:
            yield from unknown_fields(item, kind[5:-1])
    elif model := getattr(models, kind, None):
        names = {model.attribute_map[name]: of for name, of in model.openapi_types.items()}
        for field, item in value.items():
            if field not in names:
                yield kind, field
            else:
                yield from unknown_fields(item, names[field])


# --- containers


def test_docker_compose_takes_the_file() -> None:
    compose = PyCompose.from_json(json.dumps(read("compose.yaml")))  # its YAML reader knows no merge keys
    compose.validate()
    assert set(compose.service_names()) == {"db", "cpu", "gpu"}


def test_compose_publishes_http_alone() -> None:
    services = read("compose.yaml")["services"]
    assert {port for service in services.values() for port in service.get("ports", [])} == {"127.0.0.1:8000:8000"}


def test_the_images_ask_for_a_token_and_bound_requests() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "RAY_AUTH_MODE=token" in dockerfile
    callback = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
    assert f"{callback}={BOUNDS[callback]}" in dockerfile
    commands = [json.loads(line[4:]) for line in dockerfile.splitlines() if line.startswith("CMD ")]
    assert commands == [
        ["python", "-m", "deployments.run", f"/app/configs/serve.{kind}.yaml"] for kind in ("cpu", "gpu")
    ]


def test_the_dockerfile_has_no_lint() -> None:
    done = subprocess.run(["hadolint", str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    targets = [line.split()[-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("FROM")]
    assert targets == ["base", "cpu", "gpu"]

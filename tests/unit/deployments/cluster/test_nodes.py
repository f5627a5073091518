from __future__ import annotations

from pathlib import Path

from deployments.cluster.nodes import _commands, _is_autoscaler

MONITOR = ["python", "-u", "/x/ray/autoscaler/_private/monitor.py", "--logs-dir=/tmp", "--gcs-address=10.0.0.1:6379"]
CONFIG = "--autoscaling-config=/root/ray_bootstrap_config.yaml"


def test_the_autoscaler_of_this_cluster_is_known_by_its_command() -> None:
    assert _is_autoscaler([*MONITOR, CONFIG], "10.0.0.1:6379")


def test_a_monitor_without_a_config_adds_no_nodes() -> None:
    assert not _is_autoscaler(MONITOR, "10.0.0.1:6379")


def test_another_clusters_autoscaler_is_none_of_ours() -> None:
    assert not _is_autoscaler([*MONITOR, CONFIG], "10.0.0.2:6379")


def test_commands_are_read_and_what_has_ended_is_left_out(tmp_path: Path) -> None:
    for pid in ("1", "2", "self"):
        (tmp_path / pid).mkdir()
    (tmp_path / "1" / "cmdline").write_bytes(b"python\0-u\0")
    (tmp_path / "2" / "cmdline").symlink_to(tmp_path / "gone")
    assert list(_commands(tmp_path)) == [["python", "-u", ""]]

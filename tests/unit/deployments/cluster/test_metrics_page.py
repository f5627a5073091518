from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from deployments.cluster.metrics_page import joined

FIRST = """\
# HELP ray_murmuration_queued_tasks Tasks that wait to be run.
# TYPE ray_murmuration_queued_tasks gauge
ray_murmuration_queued_tasks{NodeAddress="10.0.0.1",priority="high"} 1.0
ray_murmuration_queued_tasks{NodeAddress="10.0.0.1",priority="low"} 2.0
# HELP ray_node_cpu_count CPUs
# TYPE ray_node_cpu_count gauge
ray_node_cpu_count{NodeAddress="10.0.0.1"} 8.0
"""
SECOND = """\
# HELP ray_serve_num_http_requests_total Requests.
# TYPE ray_serve_num_http_requests_total counter
ray_serve_num_http_requests_total{NodeAddress="10.0.0.2"} 3.0
# HELP ray_murmuration_queued_tasks Tasks that wait to be run.
# TYPE ray_murmuration_queued_tasks gauge
ray_murmuration_queued_tasks{NodeAddress="10.0.0.2",priority="high"} 4.0
"""


def test_each_family_is_there_once_with_the_samples_of_all_nodes() -> None:
    families = {family.name: family for family in text_string_to_metric_families(joined([FIRST, "", SECOND]))}

    assert set(families) == {"ray_murmuration_queued_tasks", "ray_serve_num_http_requests"}
    queued = families["ray_murmuration_queued_tasks"]
    assert [sample.value for sample in queued.samples] == [1.0, 2.0, 4.0]
    assert queued.documentation == "Tasks that wait to be run."


def test_no_page_is_an_empty_page() -> None:
    assert joined([]) == ""
    assert joined(["", ""]) == ""

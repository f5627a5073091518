"""The dashboard and the alert rules ask for metrics that exist, by labels they have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from pipeline.metric_catalogue import METRICS, MetricKind
from tests.support.dashboards import ALERTS, DASHBOARD, dashboard_queries, rule_queries, series_of

SUFFIXES = {
    MetricKind.COUNTER: ("_total",),
    MetricKind.GAUGE: ("",),
    MetricKind.HISTOGRAM: ("_bucket", "_sum", "_count"),
}
LABELS_OF = {
    f"ray_murmuration_{metric.name}{suffix}": set(metric.labels)
    for metric in METRICS.values()
    for suffix in SUFFIXES[metric.kind]
}
QUERIES = [*dashboard_queries(), *rule_queries()]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_what_there_is(query: str) -> None:
    for name, labels in series_of(query):
        assert name in LABELS_OF
        assert labels <= LABELS_OF[name]


def test_what_an_operator_needs_is_shown() -> None:
    asked = {name for query in dashboard_queries() for name, _labels in series_of(query)}
    needed = ("queued_tasks", "oldest_task_seconds", "pending_audio_seconds", "replicas", "rtfx", "batch_fill_sum")
    needed += ("window_seconds_sum", "gated_chunks_total", "stage_seconds_bucket", "waiting_callbacks")
    assert {f"ray_murmuration_{name}" for name in needed} <= asked


def test_panels_have_places_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(panels) == len({panel["id"] for panel in panels})


def test_every_alert_says_what_it_means() -> None:
    for rule in _rules():
        assert rule["alert"].startswith("Murmuration")
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]


def _rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        yield from group["rules"]

"""The queries of the Grafana dashboard and of the alert rules, and the series each asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import promql_parser
import yaml

from tests.support.processes import ROOT

DASHBOARD = ROOT / "configs" / "grafana" / "murmuration.json"
ALERTS = ROOT / "configs" / "prometheus" / "alerts.yaml"


def dashboard_queries() -> list[str]:
    """PromQL of every panel, with Grafana's variable for the interval filled in."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    targets = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [query.replace("$__rate_interval", "1m") for query in targets]


def rule_queries() -> list[str]:
    """PromQL of every alert."""
    return [rule["expr"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def series_of(query: str) -> Iterator[tuple[str, set[str]]]:
    """Name and label names of each series a query asks for."""
    yield from _series(promql_parser.parse(query))


def _series(node: Any) -> Iterator[tuple[str, set[str]]]:
    if isinstance(node, promql_parser.VectorSelector):
        yield str(node.name), {matcher.name for matcher in node.matchers.matchers}
        return
    for child in _children(node):
        yield from _series(child)


def _children(node: Any) -> Iterator[Any]:
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        child = getattr(node, name, None)
        if child is not None:
            yield child
    yield from getattr(node, "args", ())

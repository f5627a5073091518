"""What an Ingress replica tells Serve of the HTTP server in its own process."""

from __future__ import annotations

import pytest
from ray.serve._private import http_util
from ray.serve.config import HTTPOptions

from deployments.api.acknowledge import Acknowledgements
from deployments.ingress import acknowledge_answers

VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"


def test_serve_puts_the_acknowledgements_around_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_util, VARIABLE, None)
    acknowledge_answers()
    options = http_util.configure_http_middlewares(HTTPOptions(middlewares=[]))
    assert [layer.cls for layer in options.middlewares] == [Acknowledgements]


def test_what_the_operator_names_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_util, VARIABLE, "operators.own:callback")
    acknowledge_answers()
    assert getattr(http_util, VARIABLE) == "operators.own:callback"

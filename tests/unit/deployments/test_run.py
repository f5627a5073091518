from __future__ import annotations

import os
import sys

from ray._common.utils import import_attr
from ray._private import ray_constants
from ray.serve._private import constants

from deployments.config_check import config_of
from deployments.front.proxies import bounded
from deployments.run import DEFAULT_ENVIRONMENT, command, environment, main
from tests.support.processes import ROOT


def test_a_variable_that_is_set_stays() -> None:
    assert environment({"RAY_AUTH_MODE": "disabled", "A": "b"}) == {
        **DEFAULT_ENVIRONMENT,
        "RAY_AUTH_MODE": "disabled",
        "A": "b",
    }


def test_it_becomes_serve_run() -> None:
    assert command([])[-2:] == ["run", "serve_config.yaml"]
    assert command(["other.yaml", "--reload"])[1:] == ["-m", "ray.serve.scripts", "run", "other.yaml", "--reload"]


def test_its_config_is_checked_for_unknown_keys() -> None:
    assert config_of(command(["serve_config.yaml"]), ROOT) == ROOT / "serve_config.yaml"


def test_the_process_is_replaced() -> None:
    before = os.umask(0o022)
    replaced: list[tuple[str, list[str], dict[str, str]]] = []
    try:
        main([], replace=lambda *words: replaced.append(words))
        assert os.umask(0o022) == 0o077
    finally:
        os.umask(before)
    [(file, words, variables)] = replaced
    assert (file, words[0]) == (sys.executable, sys.executable)
    assert variables.items() >= DEFAULT_ENVIRONMENT.items() - {("RAY_AUTH_MODE", "token")}


def test_ray_knows_the_variables() -> None:
    assert ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR in DEFAULT_ENVIRONMENT
    callback = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
    assert hasattr(constants, callback)
    assert import_attr(DEFAULT_ENVIRONMENT[callback]) is bounded

"""The command that creates keys, and the warning if there are none."""

from __future__ import annotations

import hashlib
import logging
import re

import pytest
import yaml

from deployments.keys import main, new_key
from deployments.security.exposure import warn_if_open
from pipeline.domain.tasks.client import Scope
from pipeline.settings import AuthSettings, KeySettings

KEY = KeySettings(name="a", sha256=("0" * 64,))


def test_what_is_printed_goes_into_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    main(["new", "--name", "archive", "--scopes", "read, admin"])
    printed = capsys.readouterr().out
    [key] = re.findall(r"mur_\S+", printed)
    [entry] = AuthSettings.model_validate(yaml.safe_load(printed[printed.index("auth:") :])["auth"]).keys
    assert entry.sha256 == (hashlib.sha256(key.encode()).hexdigest(),)
    assert (entry.name, entry.scopes) == ("archive", {Scope.READ, Scope.ADMIN})


def test_no_two_keys_are_alike() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {47}


@pytest.mark.parametrize(
    "arguments", [["new"], ["new", "--name", "a b"], ["new", "--name", "a", "--scopes", "all"], []]
)
def test_what_can_not_be_is_refused_in_words(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    captured = capsys.readouterr()
    assert "error: " in captured.err
    assert "mur_" not in captured.out


@pytest.mark.parametrize(
    ("host", "keys", "warned"),
    [
        ("127.0.0.1", (), False),
        ("localhost", (), False),
        ("::1", (), False),
        ("0.0.0.0", (), True),
        ("10.0.0.5", (), True),
        ("node7", (), True),
        ("0.0.0.0", (KEY,), False),
    ],
)
def test_an_open_service_is_warned_of(
    host: str, keys: tuple[KeySettings, ...], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("deployments.security.exposure")
    logger.addHandler(caplog.handler)
    try:
        warn_if_open(AuthSettings(keys=keys), host)
    finally:
        logger.removeHandler(caplog.handler)
    assert ("auth.keys" in caplog.text) == warned

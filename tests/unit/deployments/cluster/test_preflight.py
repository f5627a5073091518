from __future__ import annotations

import pytest

from deployments.cluster import preflight
from pipeline.errors import ConfigurationError
from pipeline.settings import Settings

ON_MYSQL = Settings(database={"url": "mysql+asyncmy://user:secret@host/murmuration"})


def test_sqlite_serves_one_node() -> None:
    assert preflight.problems(Settings(), nodes=1) == ()


def test_sqlite_refuses_several_nodes_in_words() -> None:
    [sentence] = preflight.problems(Settings(), nodes=3)
    assert "this cluster has 3" in sentence
    assert "MURMURATION_DATABASE__URL" in sentence


def test_a_database_server_serves_any_number() -> None:
    assert preflight.problems(ON_MYSQL, nodes=100) == ()


def test_what_can_not_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "alive_nodes", lambda: [{}, {}])
    with pytest.raises(ConfigurationError, match="single node"):
        preflight.refuse(Settings())
    preflight.refuse(ON_MYSQL)


def test_nothing_is_refused_before_ray_has_started() -> None:
    preflight.refuse(Settings())

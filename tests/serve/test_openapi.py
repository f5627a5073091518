"""Every documented operation with generated input: no defect, no status that is not documented, no other shape."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serve.service import Service
from tests.support.thoroughness import thorough

NOBODY = "http://127.0.0.1:9/"
"""Where generated addresses lead: nothing listens there, and no test reaches out."""

SHAPES = [status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance]
"""Not whether all input of the right types is taken (a picture has no sound), nor whether all other is refused (``0``
passes for ``false``, and an empty text for nothing)."""

EXAMPLES = 25 if thorough() else 6
"""Of valid and of invalid input each, for every operation; 25 of them take half a minute."""


schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")


def test_every_operation_does_what_is_written(service: Service) -> None:
    document = schemathesis.openapi.from_url(f"{service.client.base_url}/openapi.json")
    failures: list[Exception] = []
    results = list(document.get_all_operations())
    operations = [result.ok() for result in results if isinstance(result, Ok)]
    assert len(operations) == len(results)
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                _try_out(operation.as_strategy(generation_mode=mode))
            except Unsatisfiable:  # where nothing is asked for, nothing can be wrong
                assert mode is GenerationMode.NEGATIVE
            except Exception as failure:  # noqa: BLE001 - all that is wrong is told at once
                failures.append(failure)
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {len(operations)} operations", failures)
    assert len(operations) > 10


def _try_out(cases: st.SearchStrategy[Case[Any]]) -> None:
    @given(case=cases)
    @settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    def run(case: Case[Any]) -> None:
        _keep_at_home(case)
        answer = case.call(timeout=30)
        foreseen = {"502", "503", "504"} & set(case.operation.definition.raw["responses"])
        assert answer.status_code < 500 or str(answer.status_code) in foreseen, answer.text
        case.validate_response(answer, checks=SHAPES)

    run()


def _keep_at_home(case: Case[Any]) -> None:
    for place in (case.query, case.body):
        if isinstance(place, dict):
            for name in ("file_url", "callback_url", "url"):
                if place.get(name):
                    place[name] = NOBODY
            if "wait_s" in place:
                place["wait_s"] = 0.1

"""The OpenAPI document: derived from the routes by FastAPI, and completed with examples, headers and Chinese texts.

Each text is written once, in English, beside the code. ``openapi.zh.yaml`` maps the English text to the Chinese, so a
changed text has no translation until the file is updated. A test finds such texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from importlib import resources
from typing import Any

import yaml
from fastapi import FastAPI
from typing_extensions import override

from deployments.api.documentation.examples import error_example, examples

_RETRY_AFTER = {
    "Retry-After": {"description": "Seconds to wait before trying again.", "schema": {"type": "integer", "minimum": 1}}
}
_METHODS = frozenset({"get", "post", "put", "patch", "delete", "head", "options"})
_TASK_ERRORS = "#/components/schemas/ErrorBody"


class Api(FastAPI):
    """A FastAPI application with a completed OpenAPI document."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, openapi_url=None)  # a route of ours serves it, and encodes it only once
        self._written: dict[str, bytes] = {}

    def written_document(self, prefix: str) -> bytes:
        """Return the document as JSON. The first call takes a second.

        Args:
            prefix: the path that the application is mounted at.
        """
        if prefix not in self._written:
            servers = {"servers": [{"url": prefix}]} if prefix else {}
            document = json.dumps(self.openapi() | servers, ensure_ascii=False, separators=(",", ":"))
            self._written[prefix] = document.encode()
        return self._written[prefix]

    @override
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            add_headers(document)
            _add_examples(document)
            translate(document, chinese())
        return super().openapi()


def chinese() -> Mapping[str, str]:
    """Return the Chinese translation of each English text."""
    texts: dict[str, str] = yaml.safe_load((resources.files(__package__) / "openapi.zh.yaml").read_text("utf-8"))
    return texts


def texts(node: Any, *, in_map: bool = False) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every text for readers in a document, as the object that holds it and its key.

    Args:
        node: a document, or a part of one.
        in_map: whether the keys of ``node`` are names of fields or schemas; one may be called ``description``.
    """
    if isinstance(node, list):
        for item in node:
            yield from texts(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("summary", "description") and isinstance(value, str) and not in_map:
                yield node, key
            elif in_map or key not in ("example", "examples", "default"):
                yield from texts(value, in_map=key in ("properties", "schemas"))


def translate(document: dict[str, Any], catalogue: Mapping[str, str]) -> None:
    """Append the Chinese text to each English one: to a description as a paragraph, to a summary after a slash."""
    for node, key in texts(document):
        english = node[key].replace("``", "`")
        translated = catalogue.get(english)
        between = "\n\n" if key == "description" else " / "
        node[key] = f"{english}{between}{translated}" if translated else english


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the path, the method and the description of each operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in _METHODS:
                yield path, method, operation


def add_headers(document: dict[str, Any]) -> None:
    """Document the header ``Retry-After`` for every 429 and 503."""
    for _, _, operation in operations(document):
        for status in ("429", "503"):
            if status in operation["responses"]:
                operation["responses"][status].setdefault("headers", {}).update(deepcopy(_RETRY_AFTER))


def _add_examples(document: dict[str, Any]) -> None:
    good = examples()
    for path, method, operation in operations(document):
        for status, answer in operation["responses"].items():
            media = answer.get("content", {}).get("application/json")
            if media is None:
                continue
            if media["schema"].get("$ref") == _TASK_ERRORS:
                media["example"] = error_example(int(status), path)
            elif (method, path, int(status)) in good:
                media["example"] = good[method, path, int(status)]

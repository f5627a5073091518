"""The OpenAPI document: what FastAPI derives from the routes, completed with examples, headers and Chinese texts.

Texts are written once, in English, where the code is. ``openapi.zh.yaml`` has the Chinese for each, found by the
English, so a text that has changed shows as one without a translation (a test looks for those).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from importlib import resources
from typing import Any

import yaml
from fastapi import FastAPI

from deployments.api.documentation.examples import error_example, examples

_RETRY_AFTER = {
    "Retry-After": {"description": "Seconds to wait before asking again.", "schema": {"type": "integer", "minimum": 1}}
}
_METHODS = frozenset({"get", "post", "put", "patch", "delete", "head", "options"})
_TASK_ERRORS = "#/components/schemas/ErrorBody"


class Api(FastAPI):
    """A FastAPI application whose document is complete."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, openapi_url=None)  # it is served by a route of ours, which writes it once
        self._written: dict[str, bytes] = {}

    def written_document(self, prefix: str) -> bytes:
        """Return the document as JSON. The first time takes a second.

        Args:
            prefix: the path that the application is mounted at.
        """
        if prefix not in self._written:
            servers = {"servers": [{"url": prefix}]} if prefix else {}
            document = json.dumps(self.openapi() | servers, ensure_ascii=False, separators=(",", ":"))
            self._written[prefix] = document.encode()
        return self._written[prefix]

    def openapi(self) -> dict[str, Any]:
        """See ``FastAPI.openapi``."""
        if self.openapi_schema is None:
            document = super().openapi()
            add_headers(document)
            _add_examples(document)
            translate(document, chinese())
        return super().openapi()


def chinese() -> Mapping[str, str]:
    """The Chinese for each English text."""
    texts: dict[str, str] = yaml.safe_load((resources.files(__package__) / "openapi.zh.yaml").read_text("utf-8"))
    return texts


def texts(node: Any, *, in_map: bool = False) -> Iterator[tuple[dict[str, Any], str]]:
    """Every place in a document that holds a text for people: the object and its key.

    Args:
        node: a document, or a part of one.
        in_map: whether the keys of ``node`` are names that somebody gave (a field may be called ``description``).
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
    """Puts the Chinese beside the English, on a line of its own where the English has paragraphs."""
    for node, key in texts(document):
        english = node[key].replace("``", "`")
        translated = catalogue.get(english)
        between = "\n\n" if key == "description" else " / "
        node[key] = f"{english}{between}{translated}" if translated else english


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and description of each operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in _METHODS:
                yield path, method, operation


def add_headers(document: dict[str, Any]) -> None:
    """Says of every answer that means "not now" that it says when."""
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

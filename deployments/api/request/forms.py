"""Parsing of query strings and forms into the fields of frozen dataclasses.

Validation, messages and OpenAPI documentation are derived from a dataclass's annotations (``annotated_types``),
defaults and attribute docstrings, so that no option is listed twice.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, TypeVar, get_origin, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic import create_model as create_pydantic_model
from pydantic_core import ErrorDetails, from_json

from deployments.api.request.lenient_values import Choice, Trimmed, is_blank, is_nothing, leaves, listed
from pipeline.domain.text.wording import nearest_name, sentence, with_suggestion
from pipeline.errors import InvalidValue, UnknownOption

Shape = TypeVar("Shape", bound=BaseModel)


class Form:
    """The fields of one or more dataclasses, given by name as text or as values.

    Args:
        sources: frozen dataclasses whose fields all have defaults. No two fields share a name.
        checks: functions by field, which return a parsed value checked or normalised. They raise ``ValueError`` with a
            sentence for the client.
    """

    def __init__(self, *sources: type, checks: Mapping[str, Callable[[Any], Any]] | None = None) -> None:
        definitions: dict[str, Any] = {}
        for source in sources:
            definitions |= _definitions(source, checks or {})
        self._texts = {name for name, (hint, _) in definitions.items() if str in leaves(hint)}
        self._model: type[BaseModel] = create_pydantic_model(
            "Form",
            __config__=ConfigDict(allow_inf_nan=False, arbitrary_types_allowed=True, coerce_numbers_to_str=True),
            **definitions,
        )

    @property
    def names(self) -> Collection[str]:
        """Names of all fields."""
        return self._model.model_fields.keys()

    def parse(self, values: Mapping[str, object]) -> dict[str, Any]:
        """Return the given fields as values of their types. Blank text and ``None`` mean "not given".

        Raises:
            UnknownOption: a name is not a field's. The message suggests a similar one.
            InvalidValue: values are invalid. The message names every such field.
        """
        refuse_unknown(values, self.names)
        given = {
            name: value
            for name, value in values.items()
            if not (is_blank(value) if name in self._texts else is_nothing(value))
        }
        try:
            parsed = self._model.model_validate(given)
        except ValidationError as error:
            raise invalid_value(error.errors()) from error
        return {name: getattr(parsed, name) for name in given}

    def properties(self) -> dict[str, dict[str, Any]]:
        """Return the JSON schema of each field as text in a form."""
        schema = inlined(self._model.model_json_schema())
        return {name: _as_text(field) for name, field in schema["properties"].items()}

    def parameters(self) -> list[dict[str, Any]]:
        """Return the OpenAPI descriptions of the fields as query parameters."""
        return [
            {"name": name, "in": "query", "required": False, "description": field.pop("description"), "schema": field}
            for name, field in self.properties().items()
        ]


def parse_json(body: bytes, shape: type[Shape]) -> Shape:
    """Parse a JSON body as a value of a schema. Unknown names are refused before any value is checked.

    Raises:
        UnknownOption: a name is not in the schema. The message suggests a similar one.
        InvalidValue: the body is not JSON, or values are invalid. The message names every such field.
    """
    with suppress(ValueError):  # not JSON, which is reported below
        if isinstance(given := from_json(body), dict):
            refuse_unknown(given, shape.model_fields)
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        raise invalid_value(error.errors(include_url=False)) from None  # its text repeats the body, and keys in it


def refuse_unknown(given: Collection[str], known: Collection[str]) -> None:
    """Raise ``UnknownOption`` for the first unknown name, with a similar one as a suggestion."""
    for name in given:
        if name not in known:
            statement = f"There is no option {name[:100]!a}"
            near = nearest_name(name, known)
            raise UnknownOption(with_suggestion(statement, near, "see /docs for all options"), name[:100])


def invalid_value(details: Collection[ErrorDetails]) -> InvalidValue:
    """Convert pydantic's error details to one ``InvalidValue`` that names every field."""
    problems: dict[str, str] = {}
    for detail in details:
        path = [str(part) for part in detail["loc"] if isinstance(part, str)]
        problems.setdefault(".".join(path), sentence(detail["msg"].removeprefix("Value error, ")))
    message = " ".join(f"{field}: {text}" if field else text for field, text in problems.items())
    named = tuple((field, text) for field, text in problems.items() if field)
    return InvalidValue(message, next(iter(problems)), named)


def _definitions(source: type, checks: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    hints, docs = get_type_hints(source, include_extras=True), _attribute_docs(source)
    definitions = {}
    for field in fields(source):
        if field.default is MISSING:
            raise TypeError(f"{source.__name__}.{field.name} has no default")
        annotation: Any = Annotated[hints[field.name], Field(description=docs[field.name])]
        if field.name in checks:
            annotation = Annotated[annotation, AfterValidator(checks[field.name])]
        if _is_tuple(hints[field.name]):
            written = WithJsonSchema({"type": "string", "description": docs[field.name]})
            annotation = Annotated[annotation, BeforeValidator(listed), written]
        elif any(issubclass(leaf, StrEnum) for leaf in leaves(hints[field.name])):
            annotation = Annotated[annotation, Choice]
        elif str not in leaves(hints[field.name]):
            annotation = Annotated[annotation, Trimmed]
        definitions[field.name] = (annotation, field.default)
    return definitions


def _is_tuple(hint: Any) -> bool:
    return get_origin(hint) is tuple or get_origin(getattr(hint, "__origin__", None)) is tuple


def _attribute_docs(source: type) -> dict[str, str]:
    """Return the docstrings below a class's attributes. Python discards them, so they are read from the source."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(source))).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 (for the type checker)
    return {
        attribute.target.id: inspect.cleandoc(doc.value.value)
        for attribute, doc in pairwise(definition.body)
        if isinstance(attribute, ast.AnnAssign)
        and isinstance(attribute.target, ast.Name)
        and isinstance(doc, ast.Expr)
        and isinstance(doc.value, ast.Constant)
        and isinstance(doc.value.value, str)
    }


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON schema with every reference replaced by its definition, for use inside another document."""
    definitions = schema.get("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, list):
            return [resolve(item) for item in node]
        if not isinstance(node, dict):
            return node
        target = resolve(definitions[node["$ref"].rpartition("/")[2]]) if "$ref" in node else {}
        return target | {name: resolve(value) for name, value in node.items() if name not in ("$ref", "$defs")}

    resolved: dict[str, Any] = resolve(schema)
    return resolved


def _as_text(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a field's schema for a form, where lists are text with commas, and empty text stands for null."""
    [typed] = [choice for choice in schema.pop("anyOf", [{}]) if choice.get("type") != "null"]
    schema |= typed
    del schema["title"]
    default = schema.pop("default")
    if isinstance(default, list):
        default = ",".join(map(str, default))
    return schema if default is None else schema | {"default": default}

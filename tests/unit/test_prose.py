"""The mechanical part of how docstrings are written: see CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path.relative_to(ROOT)
    for package in ("pipeline", "deployments", "tests")
    for path in (ROOT / package).rglob("*.py")
    if path.parent.name != "versions"  # migrations, which are never edited
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
QUESTIONS = frozenset({"how", "what", "when", "where", "whether", "which", "who", "whom", "whose", "why"})
NO_VERBS = frozenset(
    re.findall(
        r"\w+",
        """a all also an another any are as at both by each either every few for from her his if in is it its likewise
        many more most neither no not of on one only other same several some such that the their there these they this
        those to under what with""",
    )
)
THIRD_PERSON = re.compile(r".*[^aisu]s")
"""The form of a verb that describes ("takes"), not the one that asks ("take", "pass", "focus", "bias")."""


def first_word(docstring: str) -> str:
    """Return the docstring's first word in small letters, without marks of code and punctuation."""
    return docstring.split()[0].strip("`*\"'.,:;()").lower()


def is_called(function: Function) -> bool:
    """Return whether code calls the function: no property, which is read like a value, no fixture and no test."""
    decorators = [one.func if isinstance(one, ast.Call) else one for one in function.decorator_list]
    names = [one.attr if isinstance(one, ast.Attribute) else getattr(one, "id", "") for one in decorators]
    return {"property", "cached_property", "fixture"}.isdisjoint(names) and not function.name.startswith("test_")


def fault_of(node: ast.AST, docstring: str) -> str | None:
    """Return what is wrong with a docstring, or ``None``."""
    word = first_word(docstring)
    if word in QUESTIONS:
        return "opens like a question: say what it returns or is"
    if word == "see" and len(docstring.strip().splitlines()) == 1:
        return "only refers to another place: inherit the port and mark the method @override"
    if isinstance(node, Function) and is_called(node) and (word in NO_VERBS or THIRD_PERSON.fullmatch(word)):
        return "does not begin with a verb in the imperative"
    return None


def faults(source: str) -> Iterator[str]:
    """Yield each fault of a module's docstrings, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | Function) and (docstring := ast.get_docstring(node)):
            fault = fault_of(node, docstring)
            if fault:
                yield f"{getattr(node, 'lineno', 1)}: {docstring.splitlines()[0]!r} {fault}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_docstrings_say_what_is_done(path: Path) -> None:
    assert list(faults((ROOT / path).read_text())) == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('def f():\n    """Takes the next one."""', "imperative"),
        ('def f():\n    """The next one."""', "imperative"),
        ('async def f():\n    """``None`` if so."""\ndef g():\n    """Whether it is."""', "question"),
        ('class C:\n    def f(self):\n        """See ``ports.Clock``."""', "another place"),
        ('"""Where recordings are opened."""', "question"),
        ('class C:\n    """Who waits for it."""', "question"),
    ],
)
def test_each_kind_of_fault_is_found(source: str, fault: str) -> None:
    assert any(fault in each for each in faults(source))


@pytest.mark.parametrize(
    "source",
    [
        'def f():\n    """Pass it on."""',
        'def f():\n    """Return whether it is."""',
        'class C:\n    """A chunk that waits."""\n    @property\n    def f(self):\n        """The next one."""',
        '@pytest.fixture\ndef f():\n    """The next one."""\ndef test_f():\n    """The next one passes."""',
        '"""Opens recordings in processes of their own."""',
    ],
)
def test_plain_words_pass(source: str) -> None:
    assert list(faults(source)) == []

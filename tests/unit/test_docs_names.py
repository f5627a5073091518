"""Checks of the documentation: the paths, commands, settings, errors and routes that pages name exist."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import yaml
from fastapi import APIRouter
from pydantic import BaseModel
from starlette.routing import Mount, Route

import deployments.api
from pipeline.errors import MurmurationError
from pipeline.settings import BatchSettings, KeySettings, Settings
from tests.support.pages import CODE, DOCS, MAX_PAGES, ROOT, blocks, codes, content, each_page, prose

FOLDERS = ("pipeline", "deployments", "configs", "tests", "docs")
MODULE = re.compile(r"python -m ((?:deployments|pipeline|tests)[\w.]*)")
COMMAND_PATH = re.compile(rf"(?<![\w/.-])((?:{'|'.join(FOLDERS)})/[\w./-]+\.\w+)")
VARIABLE = re.compile(r"MURMURATION_[A-Z0-9_]+")
EXTRAS = re.compile(r"pip install -e '\.\[([\w,]+)\]'")
ROUTE = re.compile(r"^(?:(?:GET|POST|DELETE|PATCH|HEAD) )?(/(?:api|v1|metrics|openapi\.json)[\w/{}.-]*)")


def paths(page: Path) -> set[str]:
    """Return the paths of this repository that a page names, in its prose and in its commands."""
    in_prose = {code for code in codes(page) if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./{{}},*-]*", code)}
    in_commands = {path for text in blocks(page, "bash", "") for path in COMMAND_PATH.findall(text)}
    return in_prose | in_commands


def alternatives(path: str) -> list[str]:
    """Return ``a/b`` and ``a/c`` for ``a/{b,c}``."""
    if braces := re.search(r"\{([^}]*)\}", path):
        return [path.replace(braces[0], choice) for choice in braces[1].split(",")]
    return [path]


@each_page
def test_paths_exist(page: Path) -> None:
    named = {choice.rstrip("/") for path in paths(page) for choice in alternatives(path)}
    assert {path for path in named if not any(ROOT.glob(path)) and not (ROOT / f"{path}.py").is_file()} == set()


@each_page
def test_modules_that_are_run_exist(page: Path) -> None:
    for module in MODULE.findall(content(page)):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


@each_page
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^(\w+):", content(ROOT / "Makefile"), re.MULTILINE))
    commands = [*codes(page), *(text for text in blocks(page, "bash"))]
    assert {target for command in commands for target in re.findall(r"\bmake (\w+)", command)} <= targets


@each_page
def test_extras_exist(page: Path) -> None:
    project = tomllib.loads(content(ROOT / "pyproject.toml"))["project"]
    named = {extra for extras in EXTRAS.findall(content(page)) for extra in extras.split(",")}
    assert named <= project["optional-dependencies"].keys()


def section(name: str) -> type[BaseModel] | None:
    field = Settings.model_fields.get(name)
    kind = field.annotation if field else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


@each_page
def test_settings_exist(page: Path) -> None:
    for code in codes(page):
        name, dot, setting = code.partition(".")
        model = section(name)
        if dot and model and re.fullmatch(r"\w+", setting) and setting not in ("py", "file"):
            assert setting in model.model_fields, code


@each_page
def test_variables_name_settings(page: Path) -> None:
    variables_of_tests = set(VARIABLE.findall("\n".join(map(content, (ROOT / "tests").glob("**/*.py")))))
    variables_of_nodes = {"MURMURATION_SECRETS", "MURMURATION_GCS_FOLDER"}
    for variable in set(VARIABLE.findall(content(page))) - variables_of_tests - variables_of_nodes:
        name, _, setting = variable.removeprefix("MURMURATION_").lower().partition("__")
        model = section(name)
        if model is None or not setting:
            assert name in Settings.model_fields or variable.endswith("_"), variable
        else:
            assert setting.partition("__")[0] in model.model_fields, variable


def settings_examples() -> Iterator[tuple[str, dict[str, Any]]]:
    for page in MAX_PAGES:
        for text in blocks(page, "yaml"):
            example = yaml.safe_load(text)
            if isinstance(example, dict) and all(section(name) for name in example):
                yield page.name, example


def test_examples_of_settings_are_accepted() -> None:
    examples = list(settings_examples())
    assert examples
    for name, example in examples:
        assert Settings(**example), name


def subclasses(error: type[MurmurationError]) -> Iterator[type[MurmurationError]]:
    yield error
    for child in error.__subclasses__():
        yield from subclasses(child)


def error_columns(page: Path) -> Iterator[str]:
    """Yield the codes in the columns `error` of a page's tables."""
    for table in re.findall(r"(?:^\|.*\n)+", prose(page) + "\n", re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()]
        for index in [index for index, cell in enumerate(head) if cell in ("`error`", "`code`", "error")]:
            for row in rows:
                yield from CODE.findall(row[index])


def test_error_codes_exist() -> None:
    known = {error.code for error in subclasses(MurmurationError)}
    named = {code for page in MAX_PAGES for code in error_columns(page)}
    assert "private_or_removed" in named
    assert named - known == set()


@cache
def routes() -> frozenset[str]:
    """Return the paths of every router below ``deployments.api``."""
    modules = [import_module(found.name) for found in walk_packages(deployments.api.__path__, "deployments.api.")]
    routers = [value for module in modules for value in vars(module).values() if isinstance(value, APIRouter)]
    paths = {route.path for router in routers for route in router.routes if isinstance(route, (Route, Mount))}
    return frozenset(paths | {"/openapi.json"})


@each_page
def test_routes_exist(page: Path) -> None:
    named = {re.sub("/+", "/", match[1]) for code in codes(page) if (match := ROUTE.match(code))}
    for path in named:
        pattern = re.compile(re.escape(path.rstrip("/")).replace(r"\{id\}", ".+"))
        assert any(pattern.fullmatch(route) or route.startswith(path.rstrip("/")) for route in routes()), path


@each_page
def test_commands_call_routes_that_exist(page: Path) -> None:
    commands = "\n".join(text for text in blocks(page, "bash", "python"))
    for path in re.findall(r"http://(?:HOST|127\.0\.0\.1):8000(/(?:api|v1)/[\w/]+)", commands):
        assert path in routes(), path


def key_table() -> set[str]:
    rows = re.search(r"\| setting of a key .*\n\|[-| ]+\n((?:\|.*\n)+)", content(DOCS / "keys.md"))
    assert rows
    return {CODE.findall(line.split("|")[1])[0] for line in rows[1].splitlines()}


def test_every_setting_of_a_key_is_described() -> None:
    assert key_table() == KeySettings.model_fields.keys()


def test_every_setting_of_a_batch_is_described() -> None:
    assert BatchSettings.model_fields.keys() <= set(codes(DOCS / "engine.md"))

"""Checks of the documentation: examples parse."""

from __future__ import annotations

import ast
import json
import subprocess
from importlib import import_module
from pathlib import Path

import yaml

from tests.support.pages import blocks, each_page


@each_page
def test_python_examples_compile_and_import_what_exists(page: Path) -> None:
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(("pipeline", "deployments")):
                module = import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)


@each_page
def test_shell_examples_parse(page: Path) -> None:
    for text in blocks(page, "bash"):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@each_page
def test_yaml_and_json_examples_parse(page: Path) -> None:
    for text in blocks(page, "json"):
        json.loads(text)
    for text in blocks(page, "yaml"):
        yaml.safe_load(text)

"""What a job's result depends on, as hashes: code, configuration, inputs, data, numerical environment."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import unknown
from common.files import digest
from common.study.config import ROOT

if TYPE_CHECKING:
    from grimp import ImportGraph

# Modules that may not change a number: the pipeline around a stage function, and what is said about its result.
OUTSIDE = ("common.study", "common.tracking", "common.cluster", "common.errors")
OUTSIDE_PROJECT = ("study", "claims", "figures")
LENGTH = 16


def short(value: object) -> str:
    """The first 16 hex digits of a JSON value's digest."""
    return digest(value)[:LENGTH]


@cache
def code_hashes(modules: tuple[str, ...], root: Path = ROOT) -> dict[str, str]:
    """Hash of every module of this repository that `modules` reach by imports, themselves included.

    Args:
        modules: dotted names.
        root: the repository's root.

    Returns:
        module -> hash of its abstract syntax tree; comments, formatting and docstrings do not count.

    Raises:
        BadInputError: a name of `modules` is no module of the repository.
    """
    graph = _graph(root)
    reached: set[str] = set()
    todo = list(modules)
    for module in todo:
        if module not in graph.modules:
            raise unknown("module", module, graph.modules)
    while todo:
        module = todo.pop()
        if module in reached or _outside(module) or module not in graph.modules:
            continue
        reached.add(module)
        todo += graph.find_modules_directly_imported_by(module)
        todo += [module.rpartition(".")[0]] if "." in module else []
    return {module: _module_hash(_path(module, root)) for module in sorted(reached)}


def environment(packages: Iterable[str], device: str, threads: int) -> dict[str, str]:
    """The declared numerical environment: package versions, device word, thread count."""
    versions = {name: _version(name) for name in sorted(packages)}
    return {**versions, "device": device, "threads": str(threads)}


def strip_docstrings(tree: ast.AST) -> ast.AST:
    """Remove the docstring of every module, class and function, in place."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                if isinstance(first.value.value, str):
                    node.body = node.body[1:] or [ast.Pass()]
    return tree


def source_hash(source: str) -> str:
    """Hash of Python source up to comments, formatting and docstrings."""
    return short(ast.dump(strip_docstrings(ast.parse(source)), annotate_fields=False))


@cache
def _graph(root: Path) -> ImportGraph:
    import sys

    import grimp

    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    packages = [name for name in ("common", "projects") if (root / name / "__init__.py").is_file()]
    return grimp.build_graph(*packages, cache_dir=None)


@cache
def _module_hash(path: Path) -> str:
    return source_hash(path.read_text(encoding="utf-8"))


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _outside(module: str) -> bool:
    parts = module.split(".")
    if parts[0] == "projects" and len(parts) == 3 and parts[2] in OUTSIDE_PROJECT:
        return True
    return any(module == name or module.startswith(name + ".") for name in OUTSIDE)


def _path(module: str, root: Path) -> Path:
    base = root.joinpath(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")

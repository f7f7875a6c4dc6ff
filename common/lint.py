"""`make lint`, last part: file lengths and documentation against the targets of ARCHITECTURE.md."""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("common", "projects", "tests", "benchmarks")
MEDIAN, NINTH_DECILE, MAXIMUM, FUNCTION = 120, 300, 500, 40


@dataclass(frozen=True)
class Sizes:
    """Lines of the Python files of a tree, and what of common/ is documented.

    Attributes:
        lines: path relative to the root -> its number of lines.
        functions: "path:line name" -> (number of lines, has a docstring), for common/'s public functions.
    """

    lines: dict[str, int]
    functions: dict[str, tuple[int, bool]]

    def share(self, prefix: str) -> int:
        """Lines of the files whose path starts with `prefix`."""
        return sum(count for path, count in self.lines.items() if path.startswith(prefix))


def measure(root: Path) -> Sizes:
    """Count the lines of every Python file below the repository's source folders."""
    files = sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py"))
    lines: dict[str, int] = {}
    functions: dict[str, tuple[int, bool]] = {}
    for path in files:
        text, name = path.read_text(encoding="utf-8"), path.relative_to(root).as_posix()
        lines[name] = len(text.splitlines())
        if name.startswith("common/"):
            for node, title in _public(ast.parse(text)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                functions[f"{name}:{node.lineno} {title}"] = length, ast.get_docstring(node) is not None
    return Sizes(lines, functions)


def report(sizes: Sizes) -> tuple[list[str], list[str]]:
    """What the targets say about `sizes`: (lines to print, violations)."""
    counts = sorted(sizes.lines.values())
    decile = counts[(9 * len(counts) + 9) // 10 - 1]
    median = statistics.median(counts)
    bare = [name for name, (_, documented) in sizes.functions.items() if not documented]
    long = sum(length > FUNCTION for length, _ in sizes.functions.values())
    documented = 1 - len(bare) / max(1, len(sizes.functions))
    tests = sizes.share("tests/") - sizes.share("tests/projects/")
    shown = [
        f"file lengths: median {median:g} (<= {MEDIAN}), 90 % <= {decile} (<= {NINTH_DECILE}), "
        f"longest {counts[-1]} (<= {MAXIMUM}), {len(counts)} files",
        f"tests of common: {tests / max(1, sizes.share('common/')):.2f} lines per source line",
        f"documented public functions in common: {documented:.0%} of {len(sizes.functions)}; "
        f"{long} longer than {FUNCTION} lines",
    ]
    wrong = [f"{name}: no docstring" for name in bare]
    wrong += [f"{name}: {count} lines" for name, count in sizes.lines.items() if count > MAXIMUM]
    if median > MEDIAN:
        wrong.append(f"the median file has {median:g} lines, target {MEDIAN}")
    if decile > NINTH_DECILE:
        wrong.append(f"a tenth of the files has more than {decile} lines, target {NINTH_DECILE}")
    return shown, wrong


def _public(module: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    """Public functions of a module and public methods of its public classes; overloads and dunders do not count."""
    for node in module.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from ((method, f"{node.name}.{method.name}") for method in _functions(node.body))
    yield from ((node, node.name) for node in _functions(module.body))


def _functions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            if not any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list):
                yield node


if __name__ == "__main__":
    printed, violations = report(measure(Path(__file__).resolve().parent.parent))
    print("\n".join(printed))
    sys.exit("\n".join(violations) or None)

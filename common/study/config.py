"""From names on the command line to one resolved configuration; every wrong name ends here, with exit code 2."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from common.cluster.sites import SITES, site
from common.errors import BadInputError, unknown

ROOT = Path(__file__).resolve().parents[2]
SCALES = ("smoke", "laptop", "workstation", "paper")
COUNTS = {
    "batch", "copies", "draws", "epochs", "episodes", "every", "folds", "images", "length", "looks", "minibatches",
    "rounds", "sample", "side", "size", "steps", "trials", "updates", "window",
}  # fmt: skip
"""Last parts of keys that mean nothing below 1, or at 0."""
EXECUTORS = ("local", "batch")
WORDS = {"on", "off", "yes", "no", "y", "n"}
"""Booleans to a reader of YAML 1.1, texts to Hydra: a switch that is null by default would take "off" for true."""


def projects(root: Path = ROOT) -> list[str]:
    """Names of the folders under projects/ that hold a study.py."""
    return sorted(path.parent.name for path in (root / "projects").glob("*/study.py"))


def scales(project: str, root: Path = ROOT) -> list[str]:
    """The scales that a project has a config file for: the four of all projects, smallest first, then its own."""
    folder = root / "configs" / "project" / project
    named = {path.stem for path in folder.glob("*.yaml")} - {"base"}
    return [*(scale for scale in SCALES if scale in named), *sorted(named.difference(SCALES))]


def check_names(project: str, scale: str, launch: str = "local", root: Path = ROOT) -> None:
    """Refuse an unknown project, scale or launch profile, naming the nearest valid one.

    Raises:
        BadInputError: a name is unknown.
    """
    if project not in projects(root):
        raise unknown("PROJECT", project, projects(root))
    if scale not in scales(project, root):
        raise unknown("SCALE", scale, scales(project, root))
    launches = [path.stem for path in (root / "configs" / "launch").glob("[!_]*.yaml")]
    if launch in SITES and SITES[launch].retired:
        site(launch)
    if launch not in launches:
        raise unknown("LAUNCH", launch, launches)


def compose(
    project: str, scale: str, overrides: Sequence[str] = (), launch: str = "local", root: Path = ROOT
) -> dict[str, Any]:
    """The study's configuration as a plain nested dict.

    Args:
        project: folder name under projects/.
        scale: one of `scales`.
        overrides: Hydra overrides ``key=value``; only keys that exist may be set.
        launch: a file of configs/launch/.
        root: the repository's root.

    Raises:
        BadInputError: an unknown name or key (the nearest is named), or a value of another type.
    """
    check_names(project, scale, launch, root)
    base = _compose(project, scale, (), launch, root)
    _check_executor(base)
    if not overrides:
        return base
    keys = dict(flatten(base))
    for override in overrides:
        _check_override(override, base, keys)
    changed = _compose(project, scale, overrides, launch, root)
    for key, value in flatten(changed):
        _check_type(key, keys.get(key), value)
    _check_executor(changed)
    return changed


def _check_executor(cfg: Mapping[str, Any]) -> None:
    if (executor := cfg["launch"]["executor"]) not in EXECUTORS:
        raise unknown("launch.executor", str(executor), EXECUTORS)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a nested dict as (dotted key, value); lists are leaves."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield f"{prefix}{key}", value


def lookup(tree: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key.

    Raises:
        BadInputError: there is no such key.
    """
    node: Any = tree
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise unknown("config key", key, (name for name, _ in flatten(tree)))
        node = node[part]  # pyright: ignore[reportUnknownVariableType]
    return node  # pyright: ignore[reportUnknownVariableType]


def _compose(project: str, scale: str, overrides: Sequence[str], launch: str, root: Path) -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    names = [f"launch={launch}", f"+project/{project}={scale}", *overrides]
    try:
        with initialize_config_dir(str(root / "configs"), version_base="1.3"):
            composed = hydra_compose("config", names)
        resolved = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise BadInputError(f"configuration of {project} at scale {scale}: {error}") from error
    return cast("dict[str, Any]", resolved)


def _check_override(override: str, base: Mapping[str, Any], keys: Mapping[str, Any]) -> None:
    key, separator, value = override.partition("=")
    if key == "launch":
        raise BadInputError(f"the site is no override: LAUNCH={value} beside ARGS names it.")
    if not separator or key[:1] in ("+", "~") or not key.strip():
        raise BadInputError(f"override {override!r} is not of the form key=value; new keys cannot be added.")
    node: Any = base
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise unknown("config key", key, keys)
        node = node[part]  # pyright: ignore[reportUnknownVariableType]


def _check_type(key: str, old: Any, new: Any) -> None:
    if new != old:
        _check_value(key, new)
    if old is None:
        if isinstance(new, str) and new.lower() in WORDS:
            raise BadInputError(f"{key} takes true or false, not {new!r}.")
        return
    if new is None or type(old) is type(new):
        return
    if _number(old) and _number(new):
        if isinstance(old, int) and new != int(new):
            raise BadInputError(f"{key} takes a whole number, not {new!r}.")
        return
    raise BadInputError(f"{key} takes a value of type {type(old).__name__}, not {new!r}.")


def _check_value(key: str, new: Any) -> None:
    if not _number(new):
        return
    if not math.isfinite(new):
        raise BadInputError(f"{key} takes a finite number, not {new!r}.")
    if key.rpartition(".")[2] in COUNTS and new <= 0:
        raise BadInputError(f"{key} takes a number above 0, not {new!r}.")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

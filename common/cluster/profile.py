"""A launch profile: the section `launch` of the configuration, checked and typed."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from common.cluster.sites import Site, site
from common.errors import BadInputError, unknown

ACCOUNT = "RETHESIS_ACCOUNT"
ACCOUNTS_FILE = ".accounts"
DEVICES = ("cuda", "rocm", "xpu")
WHOLE = {"retries": 0, "jobs": 1, "pack": 1, "margin": 1}  # at least
NUMBERS = {"poll": 0.1, "slack": 1.0}


@dataclass(frozen=True)
class Profile:
    """What a user may choose about a launch; configs/launch/_batch.yaml says what each key means.

    `data` alone is no key of it: the value of RETHESIS_DATA here, for schedulers that do not pass the environment on.
    """

    site: Site
    node_class: str
    walltime: int
    slack: float
    shortest: int
    longest: int
    retries: int
    jobs: int
    pack: int
    margin: int
    poll: float
    image: str
    runtime: str
    stage_data: bool
    setup: tuple[str, ...]
    directives: tuple[str, ...]
    passed: tuple[str, ...]
    python: str
    devices: str
    parallel_environment: str
    points: Mapping[str, float | None]
    data: str


def profile(launch: Mapping[str, Any]) -> Profile:
    """The profile that a composed `launch` section stands for.

    Raises:
        BadInputError: a key is missing or of another type, a time cannot be read, a number is out of range, or the
            site is retired.
    """
    values: dict[str, Any] = {field.name: launch.get(field.name) for field in fields(Profile)}
    values["data"] = os.environ.get("RETHESIS_DATA", "").strip() or "data"
    missing = [name for name in values if name not in launch and name != "data"]
    if missing:
        raise BadInputError(f"the launch profile lacks {', '.join(missing)}; start from _batch.yaml.")
    for name in ("walltime", "shortest"):
        values[name] = seconds(values[name], f"launch.{name}") if values[name] else 0
    values["longest"] = seconds(values["longest"], "launch.longest")
    for name, least in WHOLE.items():
        values[name] = whole(values[name], f"launch.{name}", least)
    for name, least in NUMBERS.items():
        values[name] = _number(values[name], f"launch.{name}", least)
    for name in ("setup", "directives", "passed"):
        values[name] = _lines(values[name], f"launch.{name}")
    values["points"] = _prices(values["points"])
    values |= _words(values)
    values["site"] = site(str(values["site"]))
    return Profile(**values)


def _words(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is neither number nor list: names, of which some may not be empty, and the one switch."""
    names = ("node_class", "image", "devices", "runtime", "parallel_environment", "python")
    found = {name: str(values[name] or "") for name in names}
    for name, example in (("runtime", "apptainer"), ("parallel_environment", "mpi")):
        if not found[name]:
            raise BadInputError(f"launch.{name} is empty; write a name, such as {example}.")
    if found["devices"] and found["devices"] not in DEVICES:
        raise unknown("launch.devices", found["devices"], DEVICES)
    if not isinstance(values["stage_data"], bool):
        raise BadInputError(f"launch.stage_data={_shown(values['stage_data'])}: write true or false.")
    return found


def whole(value: Any, what: str, least: int) -> int:
    """A whole number of the configuration.

    Raises:
        BadInputError: it is none, or smaller than `least`.
    """
    if not isinstance(value, int):
        raise BadInputError(f"{what}={_shown(value)} is no whole number.")
    return int(_number(value, what, least))


def _number(value: Any, what: str, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInputError(f"{what}={_shown(value)} is no number.")
    if value < least:
        raise BadInputError(f"{what}={value}: at least {least}.")
    return value


def _lines(value: Any, what: str) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        lines = cast("list[Any]", value)
        if all(isinstance(line, str) for line in lines):
            return tuple(lines)
    raise BadInputError(
        f'{what}={_shown(cast(Any, value))} is no list of lines; write {what}=["one line"], or [] for none.'
    )


def _prices(value: Any) -> dict[str, float | None]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadInputError(f"launch.points={_shown(value)}: write launch.points={{CLASS:<price>}}.")
    rows = cast("Mapping[Any, Any]", value).items()
    return {
        str(name): None if price is None else _number(price, f"launch.points.{name}", 0)
        for name, price in rows
    }


def _shown(value: Any) -> str:
    """A value as the user may have written it."""
    return "null" if value is None else repr(value)


def seconds(text: str, what: str = "walltime") -> int:
    """Seconds of ``HH:MM:SS`` or ``D-HH:MM:SS``.

    Raises:
        BadInputError: it is not written so.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", str(text).strip())
    if not match:
        raise BadInputError(f"{what}={text!r} is no time; write HH:MM:SS, quoted.")
    days, hours, minutes, rest = (int(group or 0) for group in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def clock(duration: int) -> str:
    """``HH:MM:SS``, hours without limit: what every scheduler reads."""
    return f"{duration // 3600:02d}:{duration // 60 % 60:02d}:{duration % 60:02d}"


def account(row: Site, root: Path) -> str:
    """Who pays: RETHESIS_ACCOUNT, or the line ``site=account`` of the ignored file .accounts; else empty.

    Raises:
        BadInputError: the file cannot be read, or the account is none.
    """
    given = os.environ.get(ACCOUNT, "").strip()
    path = root / ACCOUNTS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if not given and path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(
            f"{ACCOUNTS_FILE} cannot be read ({error}); write lines such as {row.name}=<yours>."
        ) from error
    for line in lines:
        name, _, value = line.partition("=")
        if name.strip() == row.name:
            given = value.strip()
    if given and not re.fullmatch(r"[\w.:@+-]+", given):
        raise BadInputError(f"the account for {row.name} holds characters that no scheduler's account has.")
    return given


def no_account(row: Site) -> str:
    """What to say when a site needs an account and none is given."""
    return (
        f"{row.title} needs an account or group ({row.account}): set {ACCOUNT}=<yours>, or write the line "
        f"{row.name}=<yours> to {ACCOUNTS_FILE} in the repository's root (ignored by git)."
    )

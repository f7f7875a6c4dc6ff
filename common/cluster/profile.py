"""A launch profile: the section `launch` of the configuration, checked and typed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from common.cluster.sites import Site, site
from common.errors import BadInputError

ACCOUNT = "RETHESIS_ACCOUNT"
ACCOUNTS_FILE = ".accounts"


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
    devices: str
    parallel_environment: str
    points: Mapping[str, float | None]
    data: str


def profile(launch: Mapping[str, Any]) -> Profile:
    """The profile that a composed `launch` section stands for.

    Raises:
        BadInputError: a key is missing, a time cannot be read, a number is out of range, or the site is retired.
    """
    values: dict[str, Any] = {field.name: launch.get(field.name) for field in fields(Profile)}
    values["data"] = os.environ.get("RETHESIS_DATA", "").strip() or "data"
    missing = [name for name in values if name not in launch and name != "data"]
    if missing:
        raise BadInputError(f"the launch profile lacks {', '.join(missing)}; start from _batch.yaml.")
    for name in ("walltime", "shortest", "longest"):
        values[name] = seconds(values[name], f"launch.{name}") if values[name] else 0
    for name, least in (
        ("retries", 0),
        ("jobs", 1),
        ("pack", 1),
        ("margin", 1),
        ("poll", 0.1),
        ("slack", 1.0),
    ):
        if values[name] < least:
            raise BadInputError(f"launch.{name}={values[name]}: at least {least}.")
    values["site"] = site(str(values["site"]))
    for name in ("node_class", "image", "devices", "parallel_environment"):
        values[name] = str(values[name] or "")
    values["setup"], values["directives"] = tuple(values["setup"]), tuple(values["directives"])
    return Profile(**values)


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
    """Who pays: RETHESIS_ACCOUNT, or the line ``site=account`` of the ignored file .accounts; else empty."""
    given = os.environ.get(ACCOUNT, "").strip()
    path = root / ACCOUNTS_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if not given and path.is_file() else []
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

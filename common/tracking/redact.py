"""Takes secrets out of what is written: by their names, by known shapes, by the environment's values.

Used for every config, provenance, log, command and traceback that leaves the process.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote

REDACTED = "[redacted]"
SHORTEST = 6  # shorter values of the environment are ordinary words, which would be cut out of every text

_STRONG = (
    r"pass(?:word|wd|phrase|code)|pwd|secrets?|authorization|credentials?|cookies?|bearer|"
    r"(?:api|access|private|secret|session|signing|encryption)[_-]?keys?|"
    r"(?:access|auth|refresh|api|bearer)[_-]?tokens?"
)
_NAME = rf"(?:{_STRONG}|token|auth|jwt|netrc)"
_SECRET_NAME = re.compile(rf"(?:^|[_\-./ ]){_NAME}(?:$|[_\-./ ]\d*$|[_\-./ ](?:value|text|string|id)$)")
_CONTAINS = re.compile(rf"(?:{_STRONG})")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Vocabulary of language models, not credentials.
_MODEL_TOKEN = re.compile(r"(?:^|[_\-.])(?:cls|class|pad|eos|bos|unk|mask|sep|dist|reg|prompt|image)_token$")
_PUBLIC_HEX = re.compile(r"(?:commit|revision|sha|sha1|sha256|digest|diff|hash|fingerprint)s?$")
_SHORT = re.compile(r"(?:^|_)(?:KEY|PASS|PW)$", re.IGNORECASE)  # of variables: a config's `sort_key` is none
_FOLDERS = {"PWD", "OLDPWD"}  # of the shell: no passwords, but the beginning of every path in a traceback
_ORDINARY = {"enabled", "disabled", "default", "required", "optional", "always", "unknown", "keyring"}

_HEX40 = r"(?<![0-9A-Za-z])[0-9a-f]{40}(?![0-9A-Za-z])"
_SHAPES = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    r"\bhf_[A-Za-z0-9]{16,}",
    r"\bwandb_v\d+_\w{16,}",
    r"(?<![0-9A-Za-z])[0-9a-f]{86}(?![0-9A-Za-z])",
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"\bgh[pousr]_[A-Za-z0-9]{30,}",
    r"\bgithub_pat_\w{20,}",
    r"\bglpat-[\w-]{20,}",
    r"\bsk-[\w-]{20,}",
    r"\bxox[abprs]-[\w-]{10,}",
    r"\bAIza[\w-]{35}",
    r"\bpypi-[\w-]{32,}",
    r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",
)
_SHAPE = re.compile("|".join(_SHAPES), re.DOTALL)
_SHAPE_OR_HEX = re.compile("|".join((*_SHAPES, _HEX40)), re.DOTALL)
_URL_LOGIN = re.compile(r"(?<=://)[^\s/@'\"]+(?=@)")
_VALUE = r"(?P<value>\"[^\"\n]*\"|'[^'\n]*'|(?:bearer|basic|token)\s+[^\s,;}\])'\"]+|[^\s,;}\])'\"]+)"
_ASSIGNED = re.compile(
    rf"(?P<name>(?<!\w)(?:[\w.\-]{{0,64}}[_\-.])?{_NAME}(?:[_\-]\w+)?)(?P<sign>[\"']?\s*[=:]\s*){_VALUE}",
    re.IGNORECASE,
)
_OPTION = re.compile(rf"(?P<name>(?<!\S)--?[\w.\-]+)(?P<sign>\s+){_VALUE}", re.IGNORECASE)


def redact(value: Any) -> Any:
    """A copy of a nested structure without secrets; mappings, sequences and strings are looked into.

    Numbers and booleans under a name like ``password`` are redacted too; ``max_tokens: 128`` and
    ``pad_token: <pad>`` are kept. A 40-digit hex string is a W&B key unless its key says commit, digest, ...
    """
    return _redact(value, _environment(), "")


def redact_text(text: str) -> str:
    """Free text (a traceback, a command, a log) without secrets: shapes, ``name=value``, ``--name value``,
    logins in addresses and the values of secret-looking environment variables.
    """
    return _text(text, _environment(), _SHAPE_OR_HEX)


def is_secret_name(name: str) -> bool:
    """Whether a config key, option or environment variable of this name holds a secret."""
    plain = _CAMEL.sub("_", name.strip().lstrip("-")).lower()
    if _MODEL_TOKEN.search(plain):
        return False
    return bool(_SECRET_NAME.search(plain) or _CONTAINS.search(plain))


def _redact(value: Any, known: re.Pattern[str] | None, key: str) -> Any:
    if isinstance(value, str):
        return _text(value, known, _SHAPE if _PUBLIC_HEX.search(key.lower()) else _SHAPE_OR_HEX)
    if isinstance(value, bytes):
        return _redact(value.decode(errors="replace"), known, key)
    if isinstance(value, Mapping):
        items = cast(Mapping[Any, Any], value).items()
        return {_key(name, known): _under(name, item, known) for name, item in items}
    if isinstance(value, Sequence | set | frozenset):
        return _items(list(cast(Sequence[Any], value)), known, key)
    return value


def _under(name: Any, item: Any, known: re.Pattern[str] | None) -> Any:
    empty = item is None or isinstance(item, bool) or item in ("", [], {}, ())
    if not empty and is_secret_name(str(name)):
        return REDACTED
    return _redact(item, known, str(name))


def _key(name: Any, known: re.Pattern[str] | None) -> Any:
    return _text(name, known, _SHAPE) if isinstance(name, str) else name


def _items(items: list[Any], known: re.Pattern[str] | None, key: str) -> list[Any]:
    """Also covers an argument vector, where an option and its value are neighbours."""
    result: list[Any] = []
    option = False
    for item in items:
        result.append(REDACTED if option and isinstance(item, str) else _redact(item, known, key))
        option = isinstance(item, str) and item.startswith("-") and "=" not in item and is_secret_name(item)
    return result


def _text(text: str, known: re.Pattern[str] | None, shape: re.Pattern[str]) -> str:
    if known is not None:
        text = known.sub(REDACTED, text)
    text = _URL_LOGIN.sub(REDACTED, shape.sub(REDACTED, text))
    return _OPTION.sub(_hide, _ASSIGNED.sub(_hide, text))


def _hide(match: re.Match[str]) -> str:
    if not is_secret_name(match["name"]) or match["value"] == REDACTED:
        return match[0]
    quotation = match["value"][0] if match["value"][0] in "\"'" else ""
    return f"{match['name']}{match['sign']}{quotation}{REDACTED}{quotation}"


def _environment() -> re.Pattern[str] | None:
    """A pattern of the environment's secret values, also as JSON, `repr` and an address would spell them."""
    values: set[str] = set()
    for name, value in os.environ.items():
        if name in _FOLDERS:
            continue
        secret = is_secret_name(name) or bool(_SHORT.search(name))
        if secret and len(value) >= SHORTEST and value.lower() not in _ORDINARY:
            values |= {value, json.dumps(value)[1:-1], repr(value)[1:-1], quote(value, safe="")}
    longest_first = sorted(values, key=lambda value: (-len(value), value))
    return re.compile("|".join(map(re.escape, longest_first))) if values else None

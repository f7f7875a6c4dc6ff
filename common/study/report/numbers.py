"""How every number of a report is written: once, for Markdown, HTML and figures alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

DIGITS = 3
NONE = "–"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None) -> str:
    """`value` with three significant digits: ``0.0312``, ``−12.5``, ``150,000``, ``1.20 × 10⁻⁷``.

    A value that fewer digits write exactly keeps them (``50``, ``0.2``); None and NaN become a dash.
    """
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    sign = "−" if value < 0 else ""
    size = abs(value)
    mantissa, _, power = f"{size:.{DIGITS - 1}e}".partition("e")
    rounded = float(f"{mantissa}e{power}")
    exponent, exact = int(power), rounded == size
    if not -4 <= exponent < 6:
        mantissa = _short(mantissa) if exact else mantissa
        return f"{sign}{mantissa} × 10{str(exponent).translate(_SUPERSCRIPT)}"
    text = f"{rounded:,.{max(0, DIGITS - 1 - exponent)}f}"
    return sign + (_short(text) if exact else text)


def count(value: float | None) -> str:
    """A whole number in full: ``12,345``."""
    return NONE if value is None else f"{round(value):,}".replace("-", "−")


def p_value(value: float | None) -> str:
    """A p value: three significant digits, ``< 0.0001`` below that."""
    if value is None or math.isnan(value):
        return NONE
    return "< 0.0001" if value < 1e-4 else number(value)


def effect(value: float | None, kind: str = "difference", unit: str = "") -> str:
    """An effect: a difference with its unit, or a log ratio as the factor it stands for (``×3.19``)."""
    if value is None:
        return NONE
    if kind == "log_ratio":
        # exp(log 3) is 3.0000000000000004: rounding noise must not cost the short form.
        return f"×{number(float(f'{math.exp(value):.12g}'))}" if value < 700 else "×∞"
    return with_unit(number(value), unit)


def interval(ci: Sequence[float | None] | None, kind: str = "difference") -> str:
    """An interval ``[low, high]``: an end that is None is open (infinite); a dash for no interval at all."""
    if ci is None:
        return NONE
    low, high = ci
    ends = (-math.inf if low is None else low, math.inf if high is None else high)
    if kind == "log_ratio":
        return f"[{', '.join('×0' if end == -math.inf else effect(end, kind) for end in ends)}]"
    return f"[{number(ends[0])}, {number(ends[1])}]"


def with_unit(text: str, unit: str) -> str:
    """`text` followed by its unit, if it has one."""
    return f"{text} {unit}" if unit and text != NONE else text


def duration(minutes: float | None) -> str:
    """A span of time: ``42 s``, ``31 min``, ``5.2 h``."""
    if minutes is None:
        return NONE
    if minutes < 1:
        return f"{number(minutes * 60)} s"
    return f"{number(minutes)} min" if minutes < 120 else f"{number(minutes / 60)} h"


def _short(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text

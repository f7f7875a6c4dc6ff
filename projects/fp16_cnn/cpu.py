"""What the CPU at hand can do, found at run time, and a way to pretend that it can do less.

RETHESIS_CPU_FEATURES="-avx512bf16" takes a feature away (LLVM's names, comma-separated). Adding one that the CPU lacks
makes kernels die of an illegal instruction: an override is therefore tried in a child process first.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import llvmlite.binding as llvm

from common.errors import BadInputError
from projects.fp16_cnn.precision import PRECISIONS

OVERRIDE = "RETHESIS_CPU_FEATURES"
TRIED = "RETHESIS_CPU_FEATURES_TRIED"  # set in the child, and for its own children
SECONDS = 120
BUILT_ON = (
    ("avx", "avx2"),
    ("avx", "avx512"),
    ("avx2", "avx512"),
    ("avx512f", "avx512"),
    ("avx", "f16c"),
    ("avx", "fma"),
    ("f16c", "avx512"),
    ("fma", "avx512"),
    ("avx512bw", "avx512bf16"),
)
FALLBACK = {
    "fma": "products are added by a library call per number: far slower",
    "f16c": "fp16 is converted by a library call per number: far slower than fp32",
    "avx512bf16": "bf16 products are computed by fp32 FMA: slower than fp32",
    "avx512fp16": "fp16 FMA is computed by conversions: for tests only",
    "avx512f": "vectors of 512 bits are split in two: about 0.9 of the speed",
}


def cpu_name() -> str:
    """The CPU's model as the operating system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, llvm.get_host_cpu_name())


def parse_override(text: str) -> dict[str, bool]:
    """Features from "+a,-b".

    Raises:
        BadInputError: an entry without sign, or a feature that LLVM does not know on this architecture.
    """
    known = llvm.get_host_cpu_features()
    wanted: dict[str, bool] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        sign, name = entry[0], entry[1:]
        if sign not in "+-" or name not in known:
            raise BadInputError(
                f"{OVERRIDE}: {entry!r} is no feature with a sign; write for example -avx512bf16 (LLVM's names)."
            )
        wanted[name] = sign == "+"
    return wanted


@functools.cache
def features() -> Mapping[str, bool]:
    """LLVM's features of the host, with the override applied after a child process survived it.

    Raises:
        BadInputError: the override is malformed, or kernels compiled with it die on this CPU.
    """
    host = dict(llvm.get_host_cpu_features())
    override = parse_override(os.environ.get(OVERRIDE, ""))
    if any(on and not host[name] for name, on in override.items()) and TRIED not in os.environ:
        try_override()
    wanted = host | override
    for name in (
        list(wanted) * 2
    ):  # what builds on a feature that was taken away goes with it; some build on such
        wanted[name] &= not any(
            name.startswith(above) and not wanted.get(base, False) for base, above in BUILT_ON
        )
    return wanted


def flattened() -> str:
    """The features as LLVM's target machine takes them: "+a,-b,...", sorted."""
    return ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(features().items()))


def try_override() -> None:
    """Run one kernel of every precision in a child process under the override.

    Raises:
        BadInputError: the child died.
    """
    command = [sys.executable, "-m", "projects.fp16_cnn.selfcheck"]
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {TRIED: "1"}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if done.returncode == 0:
        return
    code = done.returncode
    why = signal.Signals(-code).name if code < 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]
    raise BadInputError(
        f"{OVERRIDE}={os.environ[OVERRIDE]!r} does not work on this CPU ({cpu_name()}): a kernel compiled with it"
        f" ended by {why} in a trial process. Take away features only, or unset it."
    )


def has(*names: str) -> bool:
    """Whether the CPU has all these features."""
    return all(features().get(name, False) for name in names)


def available() -> tuple[str, ...]:
    """Names of the precisions whose instructions this CPU has; the others run too, correctly and slowly."""
    return tuple(name for name, precision in PRECISIONS.items() if has(*precision.needs))


def announce() -> str:
    """One line: the CPU, and what falls back to what on it."""
    missing = [f"no {name}: {words}" for name, words in FALLBACK.items() if not has(name)]
    return f"{cpu_name()}: " + ("; ".join(missing) or "every precision has its own instructions")

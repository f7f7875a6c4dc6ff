"""Features at run time, and overrides that may be wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from common.errors import BadInputError
from projects.fp16_cnn import cpu

ROOT = Path(__file__).resolve().parents[3]
ANNOUNCE = "from projects.fp16_cnn import cpu; print(cpu.announce()); print(cpu.available())"
HOST = llvm.get_host_cpu_features()


def run(code: str, override: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *(arguments or ("-c", code))],
        cwd=ROOT, env=os.environ | {cpu.OVERRIDE: override}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.skipif(HOST.get("avx512fp16", False), reason="this CPU has every feature")
def test_a_feature_that_the_cpu_lacks_is_reported_by_a_process_that_lives() -> None:
    done = run(ANNOUNCE, "+avx512fp16")
    assert done.returncode == 1  # an exception, no signal
    assert "does not work on this CPU" in done.stderr and "+avx512fp16" in done.stderr


@pytest.mark.parametrize("override", ["-avx512bf16", "-avx512f", "-avx512f,-avx2", "-f16c", "-fma"])
def test_without_a_feature_every_other_precision_is_right(override: str) -> None:
    done = run(ANNOUNCE, override)
    assert done.returncode == 0 and f"no {override.split(',', maxsplit=1)[0][1:]}" in done.stdout
    assert "'f32'" in done.stdout and "'bf16'" not in done.stdout
    check = (
        "from projects.fp16_cnn import selfcheck; from projects.fp16_cnn.precision import PRECISIONS;"
        "[selfcheck.check(PRECISIONS[name]) for name in ('f32', 'f16w', 'f16s', 'bf16', 'f16e64')]"
    )
    done = run(check, override)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", ["avx512bf16", "-avx512bf61", "-"])
def test_a_misspelt_override_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="no feature with a sign"):
        cpu.parse_override(text)


def test_the_host_is_named() -> None:
    assert cpu.cpu_name() and cpu.announce().startswith(cpu.cpu_name())
    assert "f32" in cpu.available()

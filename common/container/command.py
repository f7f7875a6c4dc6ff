"""A command inside an image, as a launch script starts it. Nothing is run or looked up here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from common.tracking.provenance import ROOT

# A variable of the host overrules the image's %environment, so what would change Python is dropped after both.
CLEAN = ("env", "-u", "PYTHONPATH", "-u", "PYTHONHOME", "-u", "PYTHONSTARTUP", "-u", "VIRTUAL_ENV")
PYTHON = "/opt/rethesis/venv/bin/python"  # containers/image.def.jinja puts it there


def inside(
    image: Path,
    command: Sequence[str],
    gpus: bool,
    *,
    runtime: str = "apptainer",
    gpu: str = "--nv",
    root: Path = ROOT,
) -> list[str]:
    """`command` as it runs inside `image`, in the work tree `root`, which is bound in at its own path.

    The environment is passed on (no ``--cleanenv``): ranks, addresses and RETHESIS_DEADLINE come through it.
    Only what would change Python is dropped.

    Args:
        image: the .sif.
        command: its program may be the Python of this process or of `root`'s .venv: the image's takes its place.
        gpus: whether the job uses devices.
        runtime: apptainer or singularity, as the site calls it.
        gpu: the option that shows the site's devices: ``--nv``, ``--rocm`` or nothing.
        root: the work tree.
    """
    program, *rest = command
    ours = {sys.executable, str(root / ".venv/bin/python"), ".venv/bin/python"}
    options = [gpu] if gpus and gpu else []
    return [
        runtime, "exec", *options, "--bind", str(root), "--pwd", str(root), str(image),
        *CLEAN, PYTHON if program in ours else program, *rest,
    ]  # fmt: skip

"""A small repository with the shape of ours, and a real Apptainer where one can be had."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import private_apptainer as private
import pytest
from private_apptainer import Apptainer

from common.tracking.provenance import ROOT

MAKEFILE = """\
reproduce:
\t@test "$$(cut -d ' ' -f 1 .venv/.ready)" = py311.txt
\t@.venv/bin/python study.py $(PROJECT) $(SCALE)
"""
STUDY = """\
import json, pathlib, random, sys, yaml
project, scale = sys.argv[1:]
draw = random.Random(0)
rows = [{"seed": seed, "loss": sum(draw.gauss(0, 1) / 3 for _ in range(100))} for seed in range(3)]
out = pathlib.Path("results") / project / scale
out.mkdir(parents=True, exist_ok=True)
(out / "table.json").write_text(json.dumps(yaml.safe_load(yaml.safe_dump(rows))))
print("done", pathlib.Path.cwd())
"""


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed repository: our table and template, a lock of one package, a study of one file."""
    root = tmp_path_factory.mktemp("small")
    (root / "containers").mkdir()
    for name in ("images.toml", "image.def.jinja"):
        shutil.copy(ROOT / "containers" / name, root / "containers" / name)
    (root / "requirements").mkdir()
    (root / "requirements" / "py311.txt").write_text(_entry("pyyaml"))
    (root / "requirements" / "py312.txt").write_text(_entry("pyyaml") + _entry("torch"))
    (root / "Makefile").write_text(MAKEFILE)
    (root / "study.py").write_text(STUDY)
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "A study"]):
        name = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
        subprocess.run(["git", *name, *words], cwd=root, check=True)
    return root


def _entry(name: str) -> str:
    lines = (ROOT / "requirements" / "py311.txt").read_text().splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{name}=="))
    end = next(i for i in range(start + 1, len(lines)) if not lines[i].startswith(" "))
    return "".join(lines[start:end])


@pytest.fixture(scope="session")
def apptainer(tmp_path_factory: pytest.TempPathFactory) -> Apptainer:
    """The system's, or a private one; skips with the reason where neither can be had."""
    folder = tmp_path_factory.mktemp("apptainer")
    program = shutil.which("apptainer")
    if program is None:
        if reason := private.missing():
            pytest.skip(reason)
        private.make()
        program = str(private.WRAPPER)
    certificates = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    arguments = {"MIRROR": private.mirror()}
    binds: list[str] = []
    if certificates:
        (folder / "certificates").mkdir()
        shutil.copy(certificates, folder / "certificates" / "ca.crt")
        arguments["CA"] = "/srv/ca.crt"
        binds = [f"{folder / 'certificates'}:/srv"]
    os.environ |= {
        "APPTAINER_ROOT": str(private.ROOT), "APPTAINER_BINDS": str(tmp_path_factory.getbasetemp()),
        "APPTAINER_TMPDIR": str(folder), "APPTAINER_CACHEDIR": str(folder / "cache"), "TMPDIR": str(folder),
    }  # fmt: skip
    found = Apptainer(program, folder, arguments, binds)
    print(f"measured: containers: {found.run('--version').stdout.strip()}")
    return found

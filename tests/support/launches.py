"""Launch profiles and asks for the tests of the launch layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from common.cluster.profile import Profile, profile
from common.cluster.script import Ask, render

ROOT = Path(__file__).resolve().parents[2]
HOME = Path("/gs/user/rethesis")


def section(name: str, **changes: Any) -> dict[str, Any]:
    """configs/launch/<name>.yaml as composed."""
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        composed = compose("config", [f"launch={name}"])
    found: Any = OmegaConf.to_container(composed["launch"], resolve=True)
    return {**found, **changes}


def launch_of(name: str, **changes: Any) -> Profile:
    """configs/launch/<name>.yaml as a profile."""
    return profile(section(name, **changes))


def script_for(chosen: Profile, ask: Ask, home: Path = HOME, program: Sequence[str] = ()) -> str:
    """The script of an ask, with one program for each of its pack: the job's, or the one given."""
    programs = [
        list(program) or ["python", "-m", "common.study.job", f"runs/{number}"] for number in range(ask.pack)
    ]
    return render(chosen, ask, programs, home, [home / f"log{number}" for number in range(ask.pack)])

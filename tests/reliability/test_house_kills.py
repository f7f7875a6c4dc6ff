"""kill -9 again and again, at moments that nobody chose: the study ends with the bits of a quiet run."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from house import House, make_house, wait_for
from processes import kill_tree

STUDY = ("reproduce", "--project", "toy", "--track", "off", "--scale", "smoke")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_and_continued_gives_the_same_bits(tmp_path: Path, kills: int) -> None:
    quiet, killed = make_house(tmp_path / "quiet"), make_house(tmp_path / "killed")
    steps = f"toy.steps={8 * kills}"  # at 0.3 s a step, no job ends before the last kill
    quiet.run(*STUDY, steps)
    moments = random.Random(kills)
    for number in range(kills):
        before = len(killed.calls())
        process = killed.start(*STUDY, steps, TOY_SLEEP="0.3")
        if number % 4:  # every fourth dies while it plans or while its engine starts
            wait_for(lambda before=before: len(killed.calls()) > before)
        time.sleep(moments.uniform(0.0, 1.5))
        assert process.poll() is None, process.communicate()
        kill_tree(process.pid)
        process.communicate()
    killed.run(*STUDY, steps)
    assert killed.bits() == quiet.bits()
    assert len(killed.calls()) > len(quiet.calls()) + kills // 2
    results = [next((house.root / "results" / "toy").iterdir()) for house in (quiet, killed)]
    for name in ("table.csv", "curves.csv"):
        assert (results[0] / name).read_bytes() == (results[1] / name).read_bytes()
    print(f"measured: study killed {kills} times at random moments, continued: the same bits")


@pytest.mark.timeout(300)
def test_secrets_of_the_environment_reach_no_file(tmp_path: Path) -> None:
    house: House = make_house(tmp_path / "house")
    planted = {
        "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
        "HF_TOKEN": "hf_PlantedPlantedPlantedPlanted12345",
        "AWS_SECRET_ACCESS_KEY": "PlantedSecret/PlantedSecret/Planted/Key1",
        "DATABASE_PASSWORD": "correct-horse-battery",
    }
    house.edit("projects/toy/stages.py", "planted crash with", "planted crash {dict(os.environ)} with")
    house.edit("projects/toy/stages.py", 'RuntimeError("planted', 'RuntimeError(f"planted')
    output = house.run(
        "reproduce", "--project", "toy", "--scale", "smoke", "toy.crash_at=2", code=1, **planted
    )
    output += house.run("logs", "--project", "toy", **planted)
    files = [path for path in house.root.rglob("*") if path.is_file()]
    assert any(path.name == "FAILED" for path in files) and any(path.name == "report.html" for path in files)
    for value in planted.values():
        assert value not in output
        assert not [str(path) for path in files if value.encode() in path.read_bytes()]


def tmpfs(folder: Path, size: str) -> bool:
    """Mount a small file system, where that is permitted."""
    folder.mkdir(parents=True)
    return os.geteuid() == 0 and os.system(f"mount -t tmpfs -o size={size} none '{folder}' 2>/dev/null") == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_full_disk_stops_with_one_message_and_the_same_command_continues(tmp_path: Path) -> None:
    house = make_house(tmp_path / "house")
    results = house.root / "results"
    if not tmpfs(results, "200k"):
        pytest.skip("a tmpfs may not be mounted here")
    try:
        (results / "ballast").write_bytes(bytes(120_000))
        output = house.run("reproduce", "--project", "toy", "--track", "off", code=None)
        assert "Traceback" not in output and ("No space left" in output or "not done" in output)
        (results / "ballast").unlink()
        os.system(f"mount -o remount,size=20m '{results}'")
        house.run("reproduce", "--project", "toy", "--track", "off")
        assert len(list(house.runs().glob("*/*/DONE"))) == 22
    finally:
        os.system(f"umount '{results}'")

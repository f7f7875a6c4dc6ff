"""The front door in one process: what every kind of end prints and returns."""

from __future__ import annotations

import errno

import pytest

from common.errors import NonFiniteError, StoppedError
from common.study import __main__ as door
from common.study import queries


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (StoppedError("stopped after step 3"), 75, "error: stopped after step 3"),
        (NonFiniteError("loss became nan"), 70, "error: loss became nan"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/r/x"),
            1,
            "/r/x: No space left on device. Free some space",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "/r/x"),
            2,
            "/r/x: Read-only file system. Mend its rights",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied"),
            2,
            "results/: Permission denied. Mend its rights",
        ),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_an_error_gives_one_message_and_its_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    message: str,
) -> None:
    def plan(request: object) -> None:
        raise error

    monkeypatch.setattr(queries, "plan", plan)
    assert door.main(["plan", "--project", "opirl", "--scale", "smoke"]) == code
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == (1 if message else 0)


def test_an_interrupt_before_anything_runs_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def plan(request: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(queries, "plan", plan)
    assert door.main(["plan", "--project", "opirl", "--scale", "smoke"]) == 130
    assert "the same command continues" in capsys.readouterr().out


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), OSError(errno.EIO, "Input/output error")])
def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def plan(request: object) -> None:
        raise error

    monkeypatch.setattr(queries, "plan", plan)
    with pytest.raises(type(error)):
        door.main(["plan", "--project", "opirl", "--scale", "smoke"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pln"], "unknown command 'pln'. Did you mean 'plan'?"),
        (["plan", "--porject", "opirl"], "unknown option '--porject'. Did you mean '--project'?"),
        (["plan"], "which PROJECT? For example PROJECT="),
        (
            ["plan", "--project", "opirl", "--scale", "smoke", "--seeds", "-1"],
            "SEEDS='-1' is not a whole number",
        ),
        (["plan", "--project", "opirl", "--scale", "smoke", "--track", "on"], "unknown TRACK 'on'"),
        (["plan", "--project", "opirl", "--scale", "smoke", "--only", "exprt"], "Did you mean 'expert'?"),
        (["new"], "make new PROJECT=my_thesis"),
    ],
)
def test_bad_input_is_named(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert door.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_what_the_user_asked_for_reaches_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(queries, "plan", seen.append)
    options = [
        "--project",
        "opirl",
        "--scale",
        "smoke",
        "--only",
        "expert,,bc",
        "--seeds",
        "3",
        "--track",
        "off",
    ]
    assert door.main(["plan", "a.b=1", *options, "c=[2]"]) == 0
    (request,) = seen
    assert isinstance(request, queries.Request)
    assert (request.project, request.scale, request.launch) == ("opirl", "smoke", "local")
    assert (request.overrides, request.only, request.seeds) == (("a.b=1", "c=[2]"), ("expert", "bc"), 3)
    assert request.track == "off"
    assert request.label.startswith("smoke+")
    assert request.result == request.root / "results" / "opirl" / request.label

"""Choose a precision for each layer of a network within an error budget: ``python -m projects.fp16_cnn.plan MODEL``.

MODEL is a torchvision name (on noise, and without --weights random: times mean something, errors little), the net.ckpt
of a finished `learn` job, or path.py:function, where the function returns a torch module, or (module, images
[n, c, h, w]).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import BadInputError, RethesisError
from common.files import read_json, write_json
from projects.fp16_cnn import cpu, machine, planning, subjects
from projects.fp16_cnn.planner import Problem, check_budget
from projects.fp16_cnn.planning import METRICS, Measured, Planned
from projects.fp16_cnn.program import Fallback
from projects.fp16_cnn.subjects import Subject
from projects.fp16_cnn.timetable import Effort

ORDER = ("planned", "greedy", "half", "f32")
WORDS = {"planned": "plan", "greedy": "from the tail", "half": "all {half}", "f32": "all f32"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code of common.errors."""
    given = _parser().parse_args(arguments)
    try:
        if given.rounds < 1:
            raise BadInputError(f"--rounds must be at least 1, not {given.rounds}.")
        subject = find(given.model, given.images, given.size, given.weights)
        print("\n".join([f"{subject.words}; {cpu.announce()}", *by_torch(subject)]))
        effort = Effort(given.rounds, 0.01, not given.untuned)
        if given.run is not None:
            run_saved(subject, given.run, given.batch, effort)
        else:
            plan(subject, given.model, given.budget, given.metric, given.batch, effort, given.save)
    except RethesisError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def find(model: str, images: int, size: int, weights: Path | None = None) -> Subject:
    """What MODEL names.

    Args:
        images: of noise, where the model brings none.
        size: their side.
        weights: a file of them, for a torchvision name.

    Raises:
        BadInputError: nothing that can be planned for.
    """
    if images < 1 or size < 1:
        raise BadInputError(f"--images and --size must be at least 1, not {images} and {size}.")
    if weights is not None and (":" in model or model.endswith((".py", ".ckpt"))):
        raise BadInputError(f"--weights belongs to a torchvision name; {model} brings its own.")
    file, colon, function = model.rpartition(":")
    if colon and file.endswith(".py"):
        return subjects.own(Path(file), function, images)
    if model.endswith(".py"):
        raise BadInputError(f"{model}: say which function builds the network: {model}:function.")
    if model.endswith(".ckpt"):
        return subjects.trained(Path(model))
    return subjects.named(model, 0, images, size, weights)


def by_torch(subject: Subject) -> list[str]:
    """A line that names the operators without a kernel, if there are any."""
    names = [f"{node.name} ({node.operator})" for node in subject.program.nodes if isinstance(node, Fallback)]
    return [f"no kernel, run by torch in fp32 in every plan: {', '.join(names)}"] if names else []


def plan(
    subject: Subject, model: str, budget: float, metric: str, batch: int, effort: Effort, save: Path | None
) -> None:
    """Plan, print, and save where asked.

    Raises:
        BadInputError: the budget is not possible, or `save` cannot be written.
    """
    check_budget(budget)
    if batch < 1:
        raise BadInputError(f"--batch must be at least 1, not {batch}.")
    if save is not None and (save.is_dir() or not save.absolute().parent.is_dir()):
        raise BadInputError(f"--save {save}: name a file in a folder that exists.")
    planned = planning.make(subject, planning.problem_of(subject, batch, effort), metric, budget)
    measured = planning.measure(subject, planned.plans, batch, effort)
    own = measured["planned"]
    lines = [
        *_layers(planned),
        *left_out(planned.problem),
        "",
        *_summary(planned, measured, batch, len(subject.held)),
    ]
    print("\n".join([*lines, *overrun(own, metric, budget)]))
    if metric == "agreement":
        print(
            f"A budget of {budget:g} changed answers corresponds to a relative error of {planned.limit:.3g}."
        )
    if save is not None:
        record = {"model": model, "metric": metric, "budget": budget, "batch": batch, "cpu": cpu.cpu_name()}
        record |= {"plan": planned.plans["planned"], "predicted": _predicted(planned, "planned")}
        write_json(save, record | {"measured": vars(own)})
        print(f"saved {save}; run it with --run {save}")


def left_out(problem: Problem) -> list[str]:
    """A line for each precision in which layers overflow: they are planned without it."""
    table = problem.table
    lines: list[str] = []
    for name in machine.timed():
        layers = [layer for layer, choices in table.items() if name not in choices]
        if layers:
            lines.append(f"not planned in {name}, where the logits are not finite: {', '.join(layers)}")
    return lines


def overrun(own: Measured, metric: str, budget: float) -> list[str]:
    """What to say where held-out images use more than the budget; nothing where they do not."""
    used = own.error if metric == "error" else 1 - own.agreement
    if used <= budget:
        return []
    return [
        f"On these images the plan uses {used / budget:.2f} of its budget: errors are predicted from other images, as "
        f"if layers were independent. A budget of {budget**2 / used:.2g} leaves room for that."
    ]


def run_saved(subject: Subject, path: Path, batch: int, effort: Effort) -> None:
    """Run a saved plan beside all-f32.

    Raises:
        BadInputError: no such file, no plan, or the plan of another network.
    """
    try:
        held = read_json(path)
        plan = {str(layer): str(precision) for layer, precision in held["plan"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInputError(
            f"{path} holds no plan that --save wrote ({type(error).__name__}: {error})."
        ) from error
    measured = planning.measure(subject, {"planned": plan, "f32": "f32"}, batch, effort)
    print("\n".join(_measured_lines(measured, {}, batch, len(subject.held))))


def _layers(planned: Planned) -> list[str]:
    """One line for each layer: precision, milliseconds, error."""
    table, plan = planned.problem.table, planned.plans["planned"]
    wide = max(len(name) for name in table)
    lines = [f"{'layer':{wide}}  precision      ms   f32 ms     error"]
    for name, precision in plan.items():
        choice, f32 = table[name][precision], table[name]["f32"].seconds
        times = f"{1e3 * choice.seconds:8.3f} {1e3 * f32:8.3f}"
        lines.append(f"{name:{wide}}  {precision:9s} {times}  {choice.error:8.1e}")
    return lines


def _summary(planned: Planned, measured: Mapping[str, Measured], batch: int, images: int) -> list[str]:
    words = {name: text.format(half=planned.half) for name, text in WORDS.items()}
    predicted = {name: _predicted(planned, name) for name in ORDER}
    return _measured_lines(measured, predicted, batch, images, words)


def _measured_lines(
    measured: Mapping[str, Measured],
    predicted: Mapping[str, Mapping[str, float]],
    batch: int,
    images: int,
    words: Mapping[str, str] = WORDS,
) -> list[str]:
    lines = [
        f"batch {batch}, one thread; errors and agreement with fp32 on {images} images that no choice was made from",
        f"{'':14s} {'ms':>9s} {'gain':>6s} {'error':>9s} {'agree':>7s}   predicted: ms, error, agree",
    ]
    f32 = measured["f32"].seconds
    for name in (name for name in ORDER if name in measured):
        own, told = measured[name], predicted.get(name)
        line = f"{words[name]:14s} {1e3 * own.seconds:9.3f} {f32 / own.seconds:6.2f}"
        line += f" {own.error:9.2e} {own.agreement:7.4f}"
        if told:
            line += f"   {1e3 * told['seconds']:.3f}, {told['error']:.2e}, {told['agreement']:.4f}"
        lines.append(line)
    return lines


def _predicted(planned: Planned, name: str) -> dict[str, float]:
    plan = planned.plans[name]
    seconds, error = planned.problem.seconds(plan), planned.problem.error(plan)
    return {"seconds": seconds, "error": error, "agreement": 1 - planned.turned[name]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m projects.fp16_cnn.plan", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add: Any = parser.add_argument
    add("model", metavar="MODEL")
    add(
        "--budget",
        type=float,
        default=0.01,
        help="relative error of the logits, or share of changed answers (0.01)",
    )
    add("--metric", choices=METRICS, default="error", help="what the budget is in (error)")
    add("--batch", type=int, default=1, help="images in a run (1)")
    add("--save", type=Path, help="write the plan to this file")
    add("--run", type=Path, help="run a saved plan instead of making one")
    add(
        "--weights",
        type=Path,
        help="the network's state dict, as torch.save wrote it, for a torchvision name",
    )
    add("--images", type=int, default=4, help="noise images, where the model brings none (4)")
    add("--size", type=int, default=224, help="their side, for a torchvision name (224)")
    add("--rounds", type=int, default=7, help="timing samples of each kernel (7)")
    add(
        "--untuned",
        action="store_true",
        help="take default blockings instead of measuring them (they are cached)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

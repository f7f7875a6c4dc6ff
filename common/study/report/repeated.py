"""What `make repeat` found, in words: one sentence or two for each commit and CPU model."""

from __future__ import annotations

from common.study.report.data import Json, mapping, objects, texts
from common.study.report.numbers import count, number

SHOWN = 5  # metrics that a sentence names


def told(entry: Json) -> str:
    """An entry of repeated.json for a person."""
    commit = f"commit {str(entry['commit'])[:7]}" if entry.get("commit") else "an unknown commit"
    commit += " with uncommitted changes" if entry.get("dirty") else ""
    machine = ", ".join([str(entry.get("cpu") or "an unknown CPU"), *texts(entry.get("gpus"))])
    seeds = texts(entry.get("seeds"))
    jobs, equal, changed = (int(entry.get(key) or 0) for key in ("jobs", "equal", "changed"))
    sentences = [
        f"At {commit} on {machine}, {count(equal)} of {count(jobs)} repeated jobs "
        f"(seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}) gave the same numbers to the last digit."
    ]
    differing = [metric_told(each) for each in objects(entry.get("differing"))]
    left = len(differing) + int(entry.get("more") or 0) - SHOWN
    if differing:
        rest = f"; and {count(left)} more" if left > 0 else ""
        sentences.append(f"The others differ in {'; '.join(differing[:SHOWN])}{rest}.")
    if changed:
        sentences.append(
            f"{count(changed)} of the repeated jobs ran other code, configuration or packages than the evidence’s."
        )
    versions = [packages_told(name, pair) for name, pair in sorted(mapping(entry.get("packages")).items())]
    if versions:
        sentences.append(f"Other versions than the evidence’s: {', '.join(versions)}.")
    return " ".join(sentences)


def metric_told(metric: Json) -> str:
    """``imitate final_return (3 jobs, by at most 1.2 × 10⁻⁵ of its value)``."""
    jobs = int(metric.get("jobs") or 0)
    return (
        f"{metric.get('stage')} {metric.get('metric')} ({jobs} job{'s' * (jobs != 1)}, {size_told(metric)})"
    )


def size_told(metric: Json) -> str:
    """How far a metric is from the evidence's value."""
    if metric.get("largest") is not None:
        return f"by at most {number(metric['largest'])} of its value"
    return "ended otherwise" if metric.get("metric") == "status" else "no longer measured"


def packages_told(name: str, pair: object) -> str:
    """``torch 2.15.0 (was 2.14.1)``."""
    before, here = texts(pair)
    return f"{name} {here} (was {before})"

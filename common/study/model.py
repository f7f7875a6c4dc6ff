"""What a thesis declares: its stages, its claims, its figures. Plain data, importable without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

AxisValue = str | int | float
Config = Mapping[str, Any]
Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Resources:
    """What a job of a stage asks of the machine beside its threads: memory in GB; devices and processes a node."""

    memory_gb: float = 2.0
    gpus: int = 0
    nodes: int = 1
    processes: int = 1


@dataclass(frozen=True)
class Need:
    """An earlier stage whose jobs a stage reads.

    A producer's axis that the consumer also has is matched by value; any other axis fans in, sorted.

    Attributes:
        stage: name of the producer.
        on: exceptions, producer axis -> where the consumer's value for it comes from: the name of another
            axis, a dotted key of the consumer's own config (a null there means "no such input"), or None
            to fan in over an axis that both have.
    """

    stage: str
    on: Mapping[str, str | None] = field(default_factory=dict[str, str | None])


@dataclass(frozen=True)
class Stage:
    """A named function of the study.

    Attributes:
        name: the stage's name, a folder under results/.runs/<project>/.
        run: ``"module:function"``. The function is ``(cfg, inputs, out) -> Metrics``; of a stage with a
            `stacked` axis it is ``(members: Sequence[Member]) -> Sequence[Metrics]``.
        axes: axis names in column order; their values come from the config key ``grid.<stage>``.
        needs: the stages it reads.
        arms: axis -> value -> ``"module:name"``, the code of each arm. Only these modules, and the run
            module's own imports, make up the code part of a job's fingerprint.
        config: top-level config sections handed to the function, and hashed.
        resources: of a job.
        parallel: by which strategies its training may have several processes, see `parallel` in
            configs/config.yaml; none: it has one.
        shares: ``"section.key"`` of a batch that these processes share -> rows of which each needs a multiple.
        stacked: an axis of which up to eight values share one process.
        measures_host: the CPU model enters the fingerprint (timings).
        data: ``"module:function"``, cfg -> digest of the data set on disk; empty for generated data.
    """

    name: str
    run: str
    axes: tuple[str, ...]
    needs: tuple[Need, ...] = ()
    arms: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    config: tuple[str, ...] = ()
    resources: Resources = Resources()
    parallel: tuple[str, ...] = ()
    shares: Mapping[str, int] = field(default_factory=dict[str, int])
    stacked: str | None = None
    measures_host: bool = False
    data: str = ""


@dataclass(frozen=True)
class JobRef:
    """A finished job, as its consumer sees it."""

    axes: Mapping[str, AxisValue]
    folder: Path
    metrics: Metrics


Inputs = Mapping[str, Sequence[JobRef]]


@dataclass(frozen=True)
class Member:
    """One job of a stacked process: what an unstacked stage function gets as its three arguments."""

    cfg: Config
    inputs: Inputs
    out: Path
    axes: Mapping[str, AxisValue]


Kind = Literal["superior", "noninferior", "equivalent", "ordering", "exponent", "bound", "identity"]


@dataclass(frozen=True)
class Scaled:
    """A worst value that depends on the run's own config: ``times * cfg[key]``, e.g. twice the step cap."""

    key: str
    times: float = 1.0


@dataclass(frozen=True)
class Metric:
    """A column of the table. `worst` is the finite value that a diverged run takes."""

    name: str
    unit: str
    better: Literal["higher", "lower"]
    worst: float | Scaled


@dataclass(frozen=True)
class Arm:
    """The rows of `stage` whose axes equal `where`; one value a replicate, tasks inside it averaged."""

    label: str
    stage: str
    where: Mapping[str, AxisValue]


@dataclass(frozen=True)
class Best:
    """The best of several arms, chosen by the mean of `metric` over `seeds` that no claim is tested on."""

    label: str
    arms: tuple[Arm, ...]
    metric: str
    seeds: Literal["validation", "study"] = "validation"


@dataclass(frozen=True)
class Mix:
    """A linear combination of series, per replicate: ``sum(weight * series)``; shares are tested so."""

    label: str
    terms: tuple[tuple[float, Arm | Best], ...]


Series = Arm | Best | Mix


@dataclass(frozen=True)
class Published:
    """A figure of the thesis or of a peer, to stand beside ours: never a test's input."""

    label: str
    value: float | None
    unit: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """A statement made testable. Its hash is kept: an edit after the run marks the evidence superseded.

    Attributes:
        id: short name, unique in the project.
        statement: one sentence, in our words.
        source: where the thesis says it.
        kind: which test (see common.study.verdict).
        metric: what is compared.
        method: the arm that the claim is about. For ``ordering`` the first of `order`.
        baseline: what it is compared with (superior, noninferior, equivalent, identity).
        control: superior: the method with its key term sabotaged, which the method must beat by the same
            test. noninferior, equivalent, bound, exponent: an arm with a known violation, put in the
            method's place, which the test must reject.
        effect: "difference" of the metric, or "log_ratio" of a positive one. Effects are oriented so that
            positive means the method is better.
        margin: superior: effect > margin. noninferior: effect > -margin. equivalent: |effect| < margin.
            bound: the metric is on the good side of margin. exponent: |slope - target| < margin.
            identity: every |effect| <= margin.
        pairing: the axis whose values are replicates.
        tasks: axes averaged inside a replicate.
        order: ordering: the arms, best first; each neighbour pair is tested as superior.
        axis, target: exponent: the axis of x, and the slope of log metric on log x.
        primary: member of the Holm family.
        scales: the scales that can assess it.
        published: figures to show beside ours.
        limits: what a laptop cannot show about it, one sentence.
        requires: a metric that the method's rows hold as 1 where the machine can run the method and as 0 where
            it cannot (a missing CPU instruction): then the claim is not assessed. Not for primary claims,
            whose family must not depend on the machine.
    """

    id: str
    statement: str
    source: str
    kind: Kind
    metric: Metric
    method: Series
    baseline: Series | None = None
    control: Series | None = None
    effect: Literal["difference", "log_ratio"] = "difference"
    margin: float = 0.0
    pairing: str = "seed"
    tasks: tuple[str, ...] = ()
    order: tuple[Series, ...] = ()
    axis: str = ""
    target: float = 0.0
    primary: bool = True
    scales: tuple[str, ...] = ("laptop", "workstation", "paper")
    published: tuple[Published, ...] = ()
    limits: str = ""
    requires: str = ""


@dataclass(frozen=True)
class Curves:
    """Learning curves for the report: `y` against `x` from history.jsonl, a panel per `panel` value, a
    line with a band per `line` value, of the jobs whose axes equal `where`.

    Where lines are of very different length, `x_linear` draws x linearly up to that value and logarithmically beyond.
    """

    id: str
    caption: str
    stage: str
    x: str
    y: str
    panel: str
    line: str
    x_label: str = ""
    y_label: str = ""
    x_linear: float = 0.0
    where: Mapping[str, AxisValue] = field(default_factory=dict[str, AxisValue])


@dataclass(frozen=True)
class Figure:
    """A figure of the project's own: ``draw = "module:function"``, (rows, scale) -> matplotlib Figure."""

    id: str
    caption: str
    draw: str


@dataclass(frozen=True)
class Study:
    """One thesis: read top to bottom, its study.py is the whole experiment on one page.

    Attributes:
        name: the folder's name under projects/ and configs/project/.
        title: the thesis's title.
        thesis: author and year.
        question: the question it answers, one sentence.
        stages: in order; a stage needs only earlier ones.
        claims: in the report's order.
        curves, figures: what the report shows beside the standard figures.
        packages: distributions whose versions enter every fingerprint.
        limits: scale -> what it cannot show, for the report.
        replicate: what one replicate is, for the report.
        drawn: stages whose numbers only figures read: the report leaves their tables to table.csv.
    """

    name: str
    title: str
    thesis: str
    question: str
    stages: tuple[Stage, ...]
    claims: tuple[Claim, ...] = ()
    curves: tuple[Curves, ...] = ()
    figures: tuple[Figure, ...] = ()
    packages: tuple[str, ...] = ("torch", "numpy", "pytorch-lightning")
    limits: Mapping[str, str] = field(default_factory=dict[str, str])
    replicate: str = (
        "a seed with its own initialisation and data order and, where data are drawn, its own draw"
    )
    drawn: tuple[str, ...] = ()

    def stage(self, name: str) -> Stage:
        """The stage of that name.

        Raises:
            KeyError: there is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

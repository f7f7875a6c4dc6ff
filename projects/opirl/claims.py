"""What the thesis claims, made testable. Written before the runs; see README.md for the pilot that set the sizes."""

from __future__ import annotations

from common.study.model import Arm, Best, Claim, Metric, Mix, Published, Scaled

ARRIVAL = Metric("interactions_to_80", "interactions", "lower", worst=Scaled("imitate.steps", 2.0))
RETURN = Metric("normalised", "(random 0, expert 1)", "higher", worst=0.0)
COVERAGE = Metric("coverage", "share of the expert's regions", "higher", worst=0.0)
SCALES = ("laptop", "paper")
ABSTRACT = "Hoshino et al. 2021 (arXiv 2109.04307), abstract"
DEMONSTRATORS = (
    "At laptop scale two small tasks; at every scale demonstrations come from SAC, not from people."
)
TIES = " Where neither arrives, the ratio is that of the step caps, in favour of the smaller one."
ONE_MAZE = (
    "One maze and one with its barrier on the other side, whose gap is wider; bodies with joints: the ants. "
    "Returns are counted so that 0 is a random policy in the target and 1 the expert at home, in the other maze: the "
    "true reward itself reaches 1.18 there at laptop scale."
)
UNREAD = Published(
    "OPIRL's own tables",
    None,
    "",
    ABSTRACT,
    "its tables were in no source that we could read; nothing is quoted",
)


def imitated(method: str, label: str) -> Arm:
    """What the learning curve says of a method."""
    return Arm(label, "imitate", {"method": method})


def evaluated(method: str, label: str) -> Arm:
    """What unseen episodes say of it."""
    return Arm(label, "evaluate", {"method": method})


def maze(method: str, label: str) -> Arm:
    """A method transferred from the left maze to the right one."""
    return Arm(label, "transfer", {"method": method, "env": "pointmaze_left", "target": "pointmaze_right"})


def ants(method: str, label: str) -> Arm:
    """A method transferred from the whole ant to the changed ones."""
    return Arm(label, "transfer", {"method": method, "env": "custom_ant"})


OPIRL_FORM = Best(
    "OPIRL's reward",
    (maze("opirl", "OPIRL r(s, a)"), maze("opirl_state_only", "OPIRL r(s)")),
    "normalised",
    seeds="validation",
)
AIRL_FORM = Best(
    "AIRL's reward",
    (maze("airl", "AIRL r(s, a)"), maze("airl_state_only", "AIRL r(s)")),
    "normalised",
    seeds="study",
)
PERMUTED = Best(
    "OPIRL's reward, states permuted",
    (maze("permuted", "permuted r(s, a)"), maze("permuted_state_only", "permuted r(s)")),
    "normalised",
    seeds="study",
)
TRUE = maze("true_reward", "true reward")

CLAIMS = (
    Claim(
        id="sample-efficiency",
        statement="OPIRL reaches 80 % of the expert with fewer interactions than on-policy AIRL.",
        source=ABSTRACT,
        kind="superior",
        metric=ARRIVAL,
        effect="log_ratio",
        method=imitated("opirl", "OPIRL"),
        baseline=imitated("airl", "AIRL (PPO)"),
        control=imitated("opirl_last_rollout", "OPIRL, last rollout only"),
        tasks=("env",),
        published=(
            Published(
                "DAC against on-policy GAIL",
                10.0,
                "times fewer",
                "Kostrikov et al. 2019, abstract",
                "another pair of methods, other tasks",
            ),
            UNREAD,
        ),
        scales=SCALES,
        limits=DEMONSTRATORS + TIES,
    ),
    Claim(
        id="final-return",
        statement="OPIRL's final return is not inferior to that of the best rival (margin 0.1 of the expert).",
        source=ABSTRACT + ': "better or comparable"',
        kind="noninferior",
        metric=RETURN,
        method=evaluated("opirl", "OPIRL"),
        baseline=Best(
            "best rival",
            (evaluated("dac", "DAC"), evaluated("airl", "AIRL (PPO)"), evaluated("bc", "BC")),
            "normalised",
            seeds="study",
        ),
        control=evaluated("random", "random reward"),
        margin=0.1,
        tasks=("env",),
        published=(UNREAD,),
        scales=SCALES,
        limits=DEMONSTRATORS,
    ),
    Claim(
        id="transfer-share",
        statement="In the other maze the learned reward gives at least 80 % of the return that the true reward gives.",
        source=ABSTRACT + ": rewards that transfer under changed dynamics",
        kind="bound",
        metric=RETURN,
        method=Mix("OPIRL's reward − 0.8 true", ((1.0, OPIRL_FORM), (-0.8, TRUE))),
        control=Mix("permuted − 0.8 true", ((1.0, PERMUTED), (-0.8, TRUE))),
        published=(UNREAD,),
        scales=SCALES,
        limits=ONE_MAZE,
    ),
    Claim(
        id="transfer-airl",
        statement="OPIRL's reward transfers better than AIRL's, each in its better form.",
        source=ABSTRACT,
        kind="superior",
        metric=RETURN,
        method=OPIRL_FORM,
        baseline=AIRL_FORM,
        control=PERMUTED,
        published=(UNREAD,),
        scales=SCALES,
        limits=ONE_MAZE,
    ),
    Claim(
        id="transfer-policy",
        statement="Optimising OPIRL's reward in the other maze beats carrying its policy over.",
        source=ABSTRACT,
        kind="superior",
        metric=RETURN,
        method=OPIRL_FORM,
        baseline=maze("policy_opirl", "OPIRL's policy"),
        control=PERMUTED,
        published=(UNREAD,),
        scales=SCALES,
        limits=ONE_MAZE,
    ),
    Claim(
        id="mode-covering",
        statement="With the covering term the policy covers more of what an expert with two modes does.",
        source=ABSTRACT + ": mode-covering behaviour",
        kind="superior",
        metric=COVERAGE,
        method=evaluated("covering", "OPIRL, covering"),
        baseline=evaluated("covering_off", "OPIRL, covering off"),
        control=evaluated("covering_shuffled", "OPIRL, covering shuffled actions"),
        published=(UNREAD,),
        scales=SCALES,
        limits="One maze with two goals, whose modes are told apart by eye; real tasks have more and blurred ones.",
    ),
    Claim(
        id="faster-convergence",
        statement="With the covering term OPIRL reaches 80 % of the expert with fewer interactions.",
        source=ABSTRACT + ": mode-covering makes convergence faster",
        kind="superior",
        metric=ARRIVAL,
        effect="log_ratio",
        method=imitated("covering", "OPIRL, covering"),
        baseline=imitated("covering_off", "OPIRL, covering off"),
        control=imitated("covering_shuffled", "OPIRL, covering shuffled actions"),
        published=(UNREAD,),
        scales=SCALES,
        limits="One maze with two goals.",
    ),
    Claim(
        id="on-policy-discriminator",
        statement="A reward learned against the last on-policy rollouts transfers better than one learned against "
        "replay data, all else equal: the doubt of arXiv 2403.14593.",
        source="arXiv 2403.14593, abstract",
        kind="superior",
        metric=RETURN,
        method=maze("opirl_on_policy_disc", "on-policy discriminator"),
        baseline=maze("opirl", "OPIRL r(s, a)"),
        control=maze("permuted_on_policy_disc", "on-policy discriminator, states permuted"),
        scales=SCALES,
        limits=ONE_MAZE,
    ),
    Claim(
        id="transfer-ants",
        statement="From the whole ant to the amputated and the big one OPIRL's reward transfers better than AIRL's.",
        source=ABSTRACT,
        kind="superior",
        metric=RETURN,
        method=ants("opirl_state_only", "OPIRL r(s)"),
        baseline=ants("airl_state_only", "AIRL r(s)"),
        control=ants("permuted_state_only", "OPIRL r(s), states permuted"),
        tasks=("target",),
        scales=("paper",),
        published=(UNREAD,),
    ),
)

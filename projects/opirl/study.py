"""OPIRL on one page: stages, arms, claims, figures."""

from __future__ import annotations

from common.study.model import Curves, Need, Stage, Study

METHODS = {
    "opirl": "projects.opirl.opirl:OPIRL",
    "opirl_last_rollout": "projects.opirl.opirl:OPIRL",
    "opirl_state_only": "projects.opirl.opirl:OPIRL",
    "opirl_on_policy_disc": "projects.opirl.opirl:OPIRL",
    "covering": "projects.opirl.opirl:OPIRL",
    "covering_off": "projects.opirl.opirl:OPIRL",
    "covering_shuffled": "projects.opirl.opirl:OPIRL",
    "release": "projects.opirl.opirl:OPIRL",
    "dac": "projects.opirl.dac:DAC",
    "airl": "projects.opirl.airl:AIRL",
    "airl_state_only": "projects.opirl.airl:AIRL",
    "bc": "projects.opirl.bc:BC",
    "sac": "projects.opirl.given:TrueReward",
    "random": "projects.opirl.given:RandomReward",
}
LEARNER = ("agent", "collect", "absorbing", "normaliser", "evaluation", "sac")

STUDY = Study(
    name="opirl",
    title="Off-Policy Inverse Reinforcement Learning via Distribution Matching",
    thesis="Hoshino 2021",
    question="Does learning a reward from off-policy data save interactions, and does the reward transfer?",
    stages=(
        Stage(
            name="expert",
            run="projects.opirl.expert:run",
            axes=("env", "seed"),
            config=(*LEARNER, "expert"),
            stacked="seed",
        ),
        Stage(
            name="imitate",
            run="projects.opirl.imitate:run",
            axes=("method", "env", "seed"),
            needs=(Need("expert"),),
            arms={"method": METHODS},
            config=(*LEARNER, "imitate", "demos", "algae", "discriminator", "cover", "release", "airl", "bc"),
            stacked="seed",
        ),
        Stage(
            name="transfer",
            run="projects.opirl.transfer:run",
            axes=("method", "env", "target", "seed"),
            needs=(Need("expert"), Need("imitate", on={"method": "transfer.source"})),
            config=(*LEARNER, "transfer", "release"),
            stacked="seed",
        ),
        Stage(
            name="evaluate",
            run="projects.opirl.evaluate:run",
            axes=("method", "env", "seed"),
            needs=(Need("expert"), Need("imitate")),
            config=("evaluate",),
            stacked="seed",
        ),
    ),
    claims=(),
    curves=(
        Curves(
            id="learning",
            caption="Return of the deterministic policy against training interactions.",
            stage="imitate",
            x="interactions",
            y="return",
            panel="env",
            line="method",
        ),
    ),
    packages=("torch", "numpy", "pytorch-lightning", "gymnasium", "mujoco", "scipy"),
)

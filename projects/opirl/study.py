"""OPIRL on one page: stages, arms, claims, figures."""

from __future__ import annotations

from common.study.model import Curves, Need, Stage, Study
from projects.opirl.claims import CLAIMS

METHODS = {
    "opirl": "projects.opirl.opirl:OPIRL",
    "opirl_last_rollout": "projects.opirl.opirl:OPIRL",
    "opirl_state_only": "projects.opirl.opirl:OPIRL",
    "opirl_on_policy_disc": "projects.opirl.opirl:OPIRL",
    "covering": "projects.opirl.opirl:OPIRL",
    "covering_off": "projects.opirl.opirl:OPIRL",
    "covering_shuffled": "projects.opirl.opirl:OPIRL",
    "one_f": "projects.opirl.opirl:OPIRL",
    "release": "projects.opirl.opirl:OPIRL",
    "release_expert_next": "projects.opirl.opirl:OPIRL",
    "release_log_pi": "projects.opirl.opirl:OPIRL",
    "release_timeout": "projects.opirl.opirl:OPIRL",
    "release_cover": "projects.opirl.opirl:OPIRL",
    "release_clip": "projects.opirl.opirl:OPIRL",
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
            parallel=("ddp", "fsdp"),
            shares={"collect.batch": 32},
        ),
        Stage(
            name="imitate",
            run="projects.opirl.imitate:run",
            axes=("env", "method", "seed"),
            needs=(Need("expert"),),
            arms={"method": METHODS},
            config=(*LEARNER, "imitate", "demos", "algae", "discriminator", "cover", "release", "airl", "bc"),
            stacked="seed",
            parallel=("ddp", "fsdp"),
            shares={"collect.batch": 32, "airl.batch": 32, "bc.batch": 32},
        ),
        Stage(
            name="transfer",
            run="projects.opirl.transfer:run",
            axes=("env", "target", "method", "seed"),
            needs=(Need("expert"), Need("imitate", on={"method": "transfer.source"})),
            config=(*LEARNER, "transfer", "release"),
            stacked="seed",
            parallel=("ddp", "fsdp"),
            shares={"collect.batch": 32},
        ),
        Stage(
            name="evaluate",
            run="projects.opirl.evaluate:run",
            axes=("env", "method", "seed"),
            needs=(Need("expert"), Need("imitate")),
            config=("evaluate",),
            stacked="seed",
        ),
    ),
    claims=CLAIMS,
    curves=(
        Curves(
            id="learning",
            caption="Return of the deterministic policy against training interactions, imitation.",
            stage="imitate",
            x="interactions",
            y="return",
            panel="env",
            line="method",
            x_label="training interactions",
            x_linear=1000.0,
            y_label="true return",
        ),
        Curves(
            id="transfer",
            caption="Return in the changed dynamics while a reward is optimised there.",
            stage="transfer",
            x="interactions",
            y="return",
            panel="target",
            line="method",
            x_label="training interactions in the target",
            y_label="true return",
        ),
    ),
    packages=("torch", "numpy", "pytorch-lightning", "gymnasium", "mujoco", "scipy"),
    limits={
        "laptop": "Two small tasks with networks of 64 units and at most 80,000 interactions. Sizes and rates were "
        "chosen here in a pilot, so that effects are visible within minutes; nothing is said about locomotion, about "
        "demonstrations from people, or about the released code's own settings (actor lr 1e-5, 1 M steps).",
        "workstation": "One seed: curves, no verdicts.",
        "hopper": "One seed of one task, 15,000 interactions off policy and 300,000 on policy: curves, no verdicts. "
        "The expert is SAC after 150,000 interactions.",
        "bodies": "One seed, one demonstration, 12,000 interactions off policy and 150,000 on policy: curves, no "
        "verdicts. The experts are SAC after 120,000 interactions, far from what these bodies can do.",
        "walkers": "One seed, four demonstrations, 12,000 interactions off policy, 150,000 on policy and 15,000 in the "
        "changed dynamics: curves, no verdicts. The experts are SAC after 120,000 interactions.",
    },
)

"""The toy thesis: three stages, one claim."""

from common.study.model import Arm, Claim, Curves, Metric, Need, Stage, Study

ARMS = {"arm": {"slow": "projects.toy.slow:FACTOR", "fast": "projects.toy.fast:FACTOR"}}
SCORE = Metric("score", "1", "higher", worst=0.0)


def arm(name: str) -> Arm:
    return Arm(name, "count", {"arm": name})


STUDY = Study(
    name="toy",
    title="A toy",
    thesis="Nobody, never",
    question="Is three more than two?",
    stages=(
        Stage("count", "projects.toy.stages:count", ("arm", "seed"), arms=ARMS, config=("toy",)),
        Stage(
            "stacked", "projects.toy.stages:stacked", ("arm", "seed"), (Need("count"),), ARMS, ("toy",), stacked="seed"
        ),
        Stage("total", "projects.toy.stages:total", ("arm",), (Need("stacked"),), config=()),
    ),
    claims=(
        Claim(
            id="fast-wins", statement="fast is above slow", source="-", kind="superior", metric=SCORE,
            method=arm("fast"), baseline=arm("slow"), control=arm("slow"),
        ),
    ),
    curves=(Curves("sums", "Sums", "count", "step", "sum", "arm", "arm"),),
    packages=("numpy",),
)  # fmt: skip

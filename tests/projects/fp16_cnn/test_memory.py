"""Sharing of memory, against the intervals in which values live."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from projects.fp16_cnn.buffers import Layout
from projects.fp16_cnn.memory import Step, allocate

SIZES = st.sampled_from(
    [
        Layout(1, 4, 4, 16),
        Layout(1, 4, 4, 32, storage="float16"),
        Layout(1, 2, 2, 16),
        Layout(1, 4, 4, 16, (1, 1, 1, 1)),
        Layout(1, 2, 4, 40, (0, 1, 0, 1)),
    ]
)


@st.composite
def networks(draw: st.DrawFn) -> tuple[dict[str, Layout], list[Step], dict[str, str]]:
    """Random graphs, some of whose values are another one seen as a vector."""
    layouts, steps, same = {"images": draw(SIZES)}, [], {}
    for index in range(draw(st.integers(1, 12))):
        reads = draw(st.lists(st.sampled_from(list(layouts)), min_size=1, max_size=2))
        layouts[f"v{index}"] = draw(SIZES)
        steps.append((tuple(reads), f"v{index}"))
        if not any(layouts[f"v{index}"].border) and draw(st.booleans()):
            layout = layouts[f"v{index}"]
            length = layout.height * layout.width * layout.channels_padded
            layouts[f"flat{index}"] = Layout(1, 1, 1, length, storage=layout.storage)
            same[f"flat{index}"] = f"v{index}"
    return layouts, steps, same


@given(networks())
def test_values_that_live_together_do_not_overlap(
    net: tuple[dict[str, Layout], list[Step], dict[str, str]],
) -> None:
    layouts, steps, same = net
    output = steps[-1][1]
    buffers = allocate(layouts, steps, same, ("images", output))
    end = len(steps)
    born = {"images": -1, output: -1} | {writes: i for i, (_, writes) in reversed(list(enumerate(steps)))}
    dies = {name: end if name in ("images", output) else i for name, i in born.items()}
    for index, (reads, _) in enumerate(steps):
        for name in reads:
            held = same.get(name, name)
            dies[held] = max(dies[held], index)
    for name in born:
        for other in born:
            if name < other and not (dies[name] < born[other] or dies[other] < born[name]):
                a, b = buffers[name], buffers[other]
                assert a.pointer + a.layout.nbytes <= b.pointer or b.pointer + b.layout.nbytes <= a.pointer
    for name, seen in same.items():
        assert buffers[name].pointer == buffers[seen].pointer


def test_a_chain_needs_two_pieces() -> None:
    layout = Layout(1, 8, 8, 16)
    layouts = dict.fromkeys(["images", *"abcdef"], layout)
    steps: list[Step] = [
        ((before,), after) for before, after in zip(["images", *"abcde"], "abcdef", strict=True)
    ]
    buffers = allocate(layouts, steps, {}, ("images", "f"))
    assert len({buffer.pointer for buffer in buffers.values()}) == 4


def test_a_border_is_shared_with_its_own_layout_alone() -> None:
    bordered, plain = Layout(1, 8, 8, 16, (1, 1, 1, 1)), Layout(1, 8, 8, 16)
    layouts = {"images": plain, "a": bordered, "b": plain, "c": plain, "d": bordered, "e": plain}
    chain = ["images", *"abcde"]
    steps: list[Step] = [((before,), after) for before, after in itertools.pairwise(chain)]
    buffers = allocate(layouts, steps, {}, ("images", "e"))
    assert buffers["d"].pointer == buffers["a"].pointer
    assert buffers["c"].pointer != buffers["a"].pointer

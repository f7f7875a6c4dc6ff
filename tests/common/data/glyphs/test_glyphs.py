from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from common.data.glyphs.dataset import Glyphs, floats
from common.data.glyphs.draws import bits
from common.data.glyphs.faces import FACES, master, masters
from common.data.glyphs.instances import Look, render
from common.data.glyphs.letters import draw_classes, letters
from common.data.glyphs.lookalikes import THRESHOLD, candidates, distances, distinct, spans
from common.errors import BadInputError
from common.training.data import Keyed, StepSampler, loader

DIGEST = "2fc5295f7ecf25748b58a1a9148ee897bcf0e43ab46c6c993bd56373c7b47eb5"
PRINT_DIGEST = """
import hashlib
from common.data.glyphs.dataset import Glyphs
from common.data.glyphs.letters import draw_classes
data = Glyphs(3, "train", draw_classes(3, 10)[0], 203, 24, label_noise=0.2)
print(hashlib.sha256(data.images.numpy().tobytes() + data.labels.numpy().tobytes()).hexdigest())
"""


def small(split: str = "train", n: int = 203, **options: float) -> Glyphs:
    return Glyphs(3, split, draw_classes(3, 10)[0], n, 24, **options)  # pyright: ignore[reportArgumentType]


def test_the_bytes_are_these_in_this_process_and_in_another() -> None:
    data = small(label_noise=0.2)
    found = hashlib.sha256(data.images.numpy().tobytes() + data.labels.numpy().tobytes()).hexdigest()
    environment = os.environ | {"OMP_NUM_THREADS": "3", "PYTHONHASHSEED": "7"}
    other = subprocess.run(
        [sys.executable, "-c", PRINT_DIGEST], capture_output=True, text=True, check=True, env=environment
    )
    assert (found, other.stdout.strip()) == (DIGEST, DIGEST)


def test_shapes_types_and_balance() -> None:
    data = small()
    assert (data.images.shape, data.images.dtype, len(data)) == ((203, 1, 24, 24), torch.uint8, 203)
    assert sorted(Counter(data.labels.tolist()).values()) == [20] * 7 + [21] * 3
    image, label = data[5]
    assert (image.shape, image.dtype, label) == ((1, 24, 24), torch.float32, 5)
    assert torch.equal(image * 64 + 64, data.images[5].float())


def test_an_instance_depends_on_its_own_key_alone() -> None:
    few, many = draw_classes(3, 10)[0], draw_classes(3, 40)[0]
    assert many[:10] == few
    assert np.array_equal(render(3, "train", many[4:6], 7, 16)[0], render(3, "train", few, 30, 16)[4, :7])
    assert torch.equal(small(n=100).images, small().images[:100])
    chunked = render(3, "train", few[:1], 700, 16)[0]
    assert np.array_equal(chunked[500:600], render(3, "train", few[:1], 600, 16)[0, 500:])


def test_splits_and_seeds_share_no_image() -> None:
    splits = [small(split).images for split in ("train", "validation", "test")]
    splits.append(Glyphs(4, "train", draw_classes(3, 10)[0], 203, 24).images)
    seen = [row.tobytes() for images in splits for row in images.numpy()]
    assert len(set(seen)) == 4 * 203


def test_class_splits_are_disjoint_and_drawn_by_the_seed() -> None:
    groups = draw_classes(0, 200, 100, 200)
    assert [len(group) for group in groups] == [200, 100, 200]
    assert len(set().union(*groups)) == 500
    assert draw_classes(0, 200)[0] == groups[0] != draw_classes(1, 200)[0]


@pytest.mark.parametrize("counts", [(), (0,), (5, -1), (400, 400)])
def test_impossible_class_counts(counts: tuple[int, ...]) -> None:
    with pytest.raises(BadInputError):
        draw_classes(0, *counts)


def test_label_noise_is_exact_nested_and_uniform() -> None:
    clean, some, more = (small(n=2000, label_noise=share) for share in (0.0, 0.2, 0.5))
    assert torch.equal(clean.labels, clean.truth)
    assert torch.equal(clean.images, more.images)
    wrong = [data.labels != data.truth for data in (some, more)]
    assert [int(part.sum()) for part in wrong] == [400, 1000]
    assert bool((wrong[1] | ~wrong[0]).all())
    away = Counter(((more.labels - more.truth)[wrong[1]] % 10).tolist())
    assert sorted(away) == list(range(1, 10))
    assert all(abs(count - 1000 / 9) < 45 for count in away.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "valid"}, "Did you mean 'validation'"),
        ({"n": 9}, "an image or more of each"),
        ({"letters": [65]}, "two classes or more"),
        ({"letters": [65, 66, 65]}, "all different"),
        ({"label_noise": 1.5}, "a share"),
        ({"label_noise": float("nan")}, "a share"),
        ({"label_noise": 0.1, "split": "test"}, "on the training split"),
        ({"size": 17}, "even"),
        ({"size": 0}, "even"),
    ],
)
def test_bad_options(change: dict[str, object], message: str) -> None:
    options: dict[str, object] = {"split": "train", "letters": draw_classes(0, 10)[0], "n": 20}
    with pytest.raises(BadInputError, match=message):
        Glyphs(0, **(options | change))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "change",
    [
        {"rotation": -1.0},
        {"shift": float("nan")},
        {"scale": (1.2, 1.0)},
        {"scale": (0.0, 1.0)},
        {"noise": (0, 400)},
        {"ink": (0, 256)},
        {"shift": 1.5},
    ],
)
def test_bad_looks(change: dict[str, float]) -> None:
    with pytest.raises(BadInputError, match="look"):
        Look(**change)  # pyright: ignore[reportArgumentType]


def test_a_still_look_shows_the_master() -> None:
    still = Look(0, 0, (1, 1), (0, 0), (255, 255), (0, 0))
    shown = render(0, "train", [ord("R")], 60, 16, still)[0].astype(int)
    sharp = masters([ord("R")], 32)[0].astype(int).reshape(12, 16, 2, 16, 2).mean(axis=(2, 4))
    nearest = np.abs(shown[:, None] - sharp).max(axis=(2, 3))
    assert nearest.min(axis=1).max() <= 2
    assert len(set(nearest.argmin(axis=1))) == len(FACES)


def test_a_bar_can_be_turned_until_it_lies() -> None:
    turned = Look(90, 0, (1, 1), (0, 0), (255, 255), (0, 0))
    shown = render(0, "train", [ord("I")], 300, 16, turned)[0].astype(float)
    wide, high = shown.max(axis=1).sum(axis=1), shown.max(axis=2).sum(axis=1)
    assert (wide > 1.3 * high).sum() > 50 < (high > 1.3 * wide).sum()


def test_letters_are_whole_centred_and_of_one_size() -> None:
    drawn = masters(letters()[::7], 32).max(axis=1)
    assert drawn[:, [0, -1]].max() == drawn[:, :, [0, -1]].max() == 0
    for letter in letters()[::23]:
        inked = [np.flatnonzero(master("DejaVuSans", letter, 64).max(axis=axis)) for axis in (0, 1)]
        assert max(np.ptp(part) + 1 for part in inked) in (42, 43, 44)
        assert all(abs(part[0] + part[-1] - 63) <= 2 for part in inked)


def test_even_the_extreme_look_stays_inside() -> None:
    images = render(0, "train", letters()[::9], 40, 24, Look(ground=(0, 0), noise=(0, 0))).astype(int)
    edge = images[:, :, [0, -1]].sum(axis=(2, 3)) + images[:, :, :, [0, -1]].sum(axis=(2, 3))
    assert (edge / images.sum(axis=(2, 3))).max() < 0.1


def test_noise_has_the_standard_deviation_that_was_asked_for() -> None:
    flat = Look(ground=(100, 100), ink=(100, 100), noise=(20, 20))
    images = render(0, "train", [65], 200, 32, flat).astype(float)
    assert abs(images.std() - 20) < 0.2
    assert abs(images.mean() - 100) < 0.2


def test_the_shipped_letters_are_those_that_measurement_keeps() -> None:
    found = candidates()
    assert len(found) == 1511
    kept = distinct(found)
    assert kept == letters()
    assert spans(kept).startswith("41-45 48-4d ")


def test_lookalikes_are_dropped_in_favour_of_the_first() -> None:
    latin, greek, cyrillic = ord("A"), 0x391, 0x410
    assert distinct([latin, ord("B"), greek, cyrillic]) == [latin, ord("B")]
    inks = masters([latin, greek, ord("B")], 16).reshape(3, -1).astype(np.int16)
    same, alike, other = distances(inks[0], inks)
    assert same == 0 == alike < THRESHOLD < other < 1


def test_a_letter_that_no_face_draws_is_refused() -> None:
    with pytest.raises(ValueError, match="draws nothing"):
        master("DejaVuSans", ord(" "), 16)


def test_random_words_are_prefixes_and_differ_by_key() -> None:
    assert np.array_equal(bits(5, 1, "a"), bits(9, 1, "a")[:5])
    assert not np.array_equal(bits(5, 1, "a"), bits(5, 1, "b"))


def test_it_works_with_the_step_sampler() -> None:
    data = small()
    sampler = StepSampler(len(data), 50, 6, seed=0)
    batches = list(loader(Keyed(data, 0), sampler))
    assert [tuple(images.shape) for images, _ in batches] == [(50, 1, 24, 24)] * 6
    again = next(iter(loader(Keyed(data, 0), StepSampler(len(data), 50, 6, seed=0, start=4))))
    assert torch.equal(again[0], batches[4][0])


def test_it_is_made_in_seconds() -> None:
    classes = draw_classes(0, 50)[0]
    render(0, "train", classes, 1, 16)
    start = time.process_time()
    Glyphs(0, "test", classes, 10_000)
    assert time.process_time() - start < 2  # 0.16 s


def test_a_net_learns_what_nearest_neighbours_do_not_see() -> None:
    """The default look: neither trivial (raw pixels) nor impossible (a small net)."""
    classes = draw_classes(0, 20)[0]
    train, test = Glyphs(0, "train", classes, 1000), Glyphs(0, "test", classes, 2000)
    x, t = floats(train.images).flatten(1), floats(test.images).flatten(1)
    nearest = train.labels[torch.cdist(t, x).argmin(dim=1)]
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 20))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.03, momentum=0.9)
    for _ in range(25):
        for batch in torch.randperm(1000, generator=generator).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), train.labels[batch]).backward()
            optimiser.step()
    wrong = [float((found != test.labels).float().mean()) for found in (net(t).argmax(dim=1), nearest)]
    assert 0.01 < wrong[0] < 0.6 * wrong[1] < 0.3


def test_the_widest_look_overflows_nowhere() -> None:
    for scale in (0.1, 10.0):
        wide = Look(90, 1, (scale, scale), (255, 255), (0, 0), (100, 100))
        images = render(0, "train", [ord("W")], 5, 256, wide).astype(float)
        corners = images[:, :, [0, -1], [0, -1]]
        assert images.min() == 0 < 255 == images.max()
        assert scale > 1 or corners.mean() > 150  # far from the letter there is ground

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
import torch

from common.data.glyphs.instances import render
from common.data.glyphs.letters import draw_classes
from common.data.retrieval.dataset import Retrieval
from common.data.retrieval.glyph_retrieval import (
    CUB_LIKE,
    SOP_LIKE,
    SPLITS,
    GlyphRetrieval,
    Variant,
    pixel_recall,
)
from common.errors import BadInputError

SMALL = Variant(7, 5, 6, (5, 6))
DIGEST = "7aa63fe8d989dc8776874a7ac3ec46af59318b2c5a20e38a7cbd8297ed303161"


def test_shape() -> None:
    data: Retrieval = GlyphRetrieval(3, "train", SMALL)
    image, label = data[0]
    assert (image.shape, image.dtype, label) == ((1, 24, 24), torch.float32, 0)
    assert (data.classes, len(data.names), data.labels.dtype) == (7, 7, torch.int64)
    assert len(data) == len(data.labels)
    assert data.labels.unique().tolist() == list(range(7))


def test_images_are_those_of_the_letters() -> None:
    data = GlyphRetrieval(3, "validation", SMALL)
    assert data.letters == draw_classes(3, 7, 5, 6)[1]
    assert [ord(name) for name in data.names] == data.letters
    for label, letter in enumerate(data.letters):
        own = data.images[data.labels == label, 0].numpy()
        assert np.array_equal(own, render(3, "validation", [letter], 6, 24, SMALL.look)[0][: len(own)])


@pytest.mark.parametrize("variant", [SMALL, CUB_LIKE, SOP_LIKE])
def test_classes_are_disjoint(variant: Variant) -> None:
    drawn = draw_classes(0, variant.train, variant.validation, variant.test)
    assert len({letter for group in drawn for letter in group}) == sum(map(len, drawn))
    if variant is SMALL:
        assert [GlyphRetrieval(0, split, SMALL).letters for split in SPLITS] == drawn


def test_it_depends_on_its_seed_alone() -> None:
    once, again, other = (GlyphRetrieval(seed, "test", SMALL) for seed in (3, 3, 4))
    assert torch.equal(once.images, again.images)
    assert once.letters != other.letters
    data = hashlib.sha256(once.images.numpy().tobytes() + once.labels.numpy().tobytes()).hexdigest()
    assert data == DIGEST


def test_numbers_of_images() -> None:
    sop = GlyphRetrieval(0, "test", SOP_LIKE)
    counts = Counter(Counter(sop.labels.tolist()).values())
    assert set(counts) == {5, 6}
    assert min(counts.values()) > 80  # of 248, each as likely
    assert SOP_LIKE.train + SOP_LIKE.validation + SOP_LIKE.test == 546
    assert (CUB_LIKE.images, CUB_LIKE.train, CUB_LIKE.test) == ((60, 60), 100, 100)


def test_raw_pixels_are_well_below_one() -> None:
    """The card's claim; the numbers there are of four seeds."""
    sop = GlyphRetrieval(0, "test", SOP_LIKE)
    assert 0.2 < pixel_recall(sop.images, sop.labels) < 0.5
    cub = GlyphRetrieval(0, "test", CUB_LIKE)
    assert 0.3 < pixel_recall(cub.images, cub.labels) < 0.5


def test_pixel_recall() -> None:
    images = torch.tensor([[0, 9, 0, 0], [0, 200, 9, 0], [90, 0, 0, 90], [99, 0, 9, 99], [9, 99, 9, 9]])
    images = images.to(torch.uint8).reshape(5, 1, 2, 2)
    assert pixel_recall(images, torch.tensor([0, 0, 1, 1, 1])) == pytest.approx(0.8)
    assert pixel_recall(255 - images // 2, torch.tensor([0, 0, 1, 1, 0]), centred=True) == 1


def test_bad_input() -> None:
    with pytest.raises(BadInputError, match="Did you mean 'test'"):
        GlyphRetrieval(0, "tset", SMALL)  # pyright: ignore[reportArgumentType]
    with pytest.raises(BadInputError, match="547 glyph classes were asked for; there are 546"):
        GlyphRetrieval(0, "test", Variant(500, 1, 46, (5, 6)))
    for images in ((0, 3), (4, 3)):
        with pytest.raises(BadInputError, match="an image or more"):
            Variant(2, 2, 2, images)

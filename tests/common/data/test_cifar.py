from __future__ import annotations

import contextlib
import os
import pickle
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.data import cifar, source
from common.data.cifar import KINDS, PIXELS, Cifar, version_of
from common.data.plainpickle import NotPlainError, read
from common.errors import BadInputError
from common.training.data import Keyed, StepSampler, loader

COUNT = 4
BOTH = pytest.mark.parametrize("form", [0, 1], ids=["binary", "python"])
EVERY = pytest.mark.parametrize("kind", ["cifar10", "cifar100"])


def text(value: str) -> bytes:
    return b"U" + bytes([len(value)]) + value.encode()


def whole(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def array(pixels: np.ndarray, kind: str = "u1", raw: bytes | None = None, fortran: bytes = b"\x89") -> bytes:
    """As cPickle of Python 2 wrote numpy arrays."""
    raw = pixels.tobytes() if raw is None else raw
    shape = whole(len(pixels)) + whole(PIXELS) + b"\x86"
    dtype = b"cnumpy\ndtype\n" + text(kind) + b"K\x00K\x01\x87R(K\x03U\x01|NNN" + whole(-1) * 2 + b"K\x00tb"
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return start + b"(K\x01" + shape + dtype + fortran + b"T" + struct.pack("<i", len(raw)) + raw + b"tb"


def batch(pixels: np.ndarray, labels: dict[str, list[int]], data: bytes | None = None) -> bytes:
    lists = (text(key) + b"](" + b"".join(map(whole, value)) + b"e" for key, value in labels.items())
    return (
        b"\x80\x02}q\x01("
        + text("batch_label") + text("training batch 1 of 5") + b"q\x02"
        + b"".join(lists)
        + text("data") + (data or array(pixels))
        + b"u."
    )  # fmt: skip


def content(kind: str, form: int, number: int) -> tuple[bytes, np.ndarray, list[int]]:
    random = np.random.default_rng(number)
    pixels = random.integers(0, 256, (COUNT, PIXELS), np.uint8)
    fine = random.integers(0, KINDS[kind].classes, COUNT).tolist()
    coarse = [label // 5 for label in fine]
    if form:
        labels = {"fine_labels": fine, "coarse_labels": coarse} if kind == "cifar100" else {"labels": fine}
        return batch(pixels, labels), pixels, fine
    head = [[c, f] if kind == "cifar100" else [f] for c, f in zip(coarse, fine, strict=True)]
    return np.concatenate([np.array(head, np.uint8), pixels], axis=1).tobytes(), pixels, fine


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The published layouts with COUNT records a file."""
    monkeypatch.setenv("RETHESIS_DATA", str(tmp_path))
    monkeypatch.setattr(source.require, "__defaults__", (tmp_path / "cache.json",))
    for name, kind in KINDS.items():
        versions = [
            replace(
                version,
                source=replace(version.source, files=dict.fromkeys(version.source.files, source.DataFile())),
                splits={key: tuple((n, COUNT) for n, _ in files) for key, files in version.splits.items()},
            )
            for version in kind.versions
        ]
        monkeypatch.setitem(cifar.KINDS, name, replace(kind, versions=tuple(versions)))
    return tmp_path


def put(kind: str, form: int, **instead: bytes) -> dict[str, tuple[np.ndarray, list[int]]]:
    version = KINDS[kind].versions[form]
    folder = source.root() / version.source.name
    folder.mkdir()
    truth: dict[str, tuple[np.ndarray, list[int]]] = {}
    for number, name in enumerate(version.source.files):
        data, *truth[name] = content(kind, form, number)  # pyright: ignore[reportArgumentType]
        (folder / name).write_bytes(instead.get(name.removesuffix(".bin"), data))
    return truth


@EVERY
@BOTH
def test_both_versions_give_the_images_and_labels_that_were_written(tiny: Path, kind: str, form: int) -> None:
    truth = list(put(kind, form).values())
    train, test = Cifar(kind, "train", validation=0), Cifar(kind, "test", validation=0)
    assert train.images.dtype == torch.uint8
    assert train.images.shape == (COUNT * (len(truth) - 1), 3, 32, 32)
    assert np.array_equal(
        train.images.numpy().reshape(-1, PIXELS), np.concatenate([p for p, _ in truth[:-1]])
    )
    assert train.labels.tolist() == [label for _, labels in truth[:-1] for label in labels]
    assert (test.labels.tolist(), len(test)) == (truth[-1][1], COUNT)
    image, label = test[1]
    red = (test.images[1, 0].float() / 255 - KINDS[kind].mean[0]) / KINDS[kind].std[0]
    assert (image.dtype, label) == (torch.float32, truth[-1][1][1])
    assert torch.allclose(image[0], red, atol=1e-5)


def test_validation_is_the_end_of_the_training_files(tiny: Path) -> None:
    put("cifar10", 0)
    whole_set, train, kept = (
        Cifar("cifar10", s, v) for s, v in (("train", 0), ("train", 7), ("validation", 7))
    )  # pyright: ignore[reportArgumentType]
    assert (len(train), len(kept)) == (13, 7)
    assert torch.equal(torch.cat([train.images, kept.images]), whole_set.images)
    with pytest.raises(BadInputError, match="for validation"):
        Cifar("cifar10", "train", 20)
    batches = list(loader(Keyed(train, 0), StepSampler(13, 5, 3, seed=0)))
    assert [tuple(images.shape) for images, _ in batches] == [(5, 3, 32, 32)] * 3


def test_the_binary_version_goes_first(tiny: Path) -> None:
    put("cifar10", 1)
    assert version_of("cifar10").source.name == "cifar-10-batches-py"
    put("cifar10", 0)
    assert version_of("cifar10").source.name == "cifar-10-batches-bin"


def test_published_sizes() -> None:
    sizes = {f.size for kind in KINDS.values() for f in kind.versions[0].source.files.values()}
    assert sizes == {30_730_000, 153_700_000, 30_740_000}


@EVERY
def test_absent_data_and_unknown_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("RETHESIS_DATA", str(tmp_path))
    with pytest.raises(BadInputError) as raised:
        Cifar(kind, "train")
    for part in (str(tmp_path), "184.4 MB", "tar -xf cifar-10", "licence", "SCALE=laptop", "not there"):
        assert part in str(raised.value)
    with pytest.raises(BadInputError, match="Did you mean 'cifar10'"):
        Cifar("cifar1", "train")
    with pytest.raises(BadInputError, match="Did you mean 'validation'"):
        Cifar(kind, "val")  # pyright: ignore[reportArgumentType]


@BOTH
def test_a_missing_file(tiny: Path, form: int) -> None:
    put("cifar10", form)
    version = version_of("cifar10")
    (tiny / version.source.name / list(version.source.files)[2]).unlink()
    with pytest.raises(BadInputError, match=r"data_batch_3.* is missing"):
        Cifar("cifar10", "train", 0)


@BOTH
@pytest.mark.parametrize("cut", [0, 1, 3000, -1, -40])
def test_truncated_files(tiny: Path, form: int, cut: int) -> None:
    put("cifar10", form, data_batch_2=content("cifar10", form, 0)[0][:cut])
    with pytest.raises(BadInputError, match=r"data_batch_2.* is damaged.*Get it again"):
        Cifar("cifar10", "train", 0)


ZEROS = np.zeros((COUNT, PIXELS), np.uint8)
GOOD = {"labels": [0, 1, 2, 3]}
DAMAGED = {
    "label out of range": batch(ZEROS, {"labels": [0, 1, 2, 10]}),
    "negative label": batch(ZEROS, {"labels": [0, 1, 2, -1]}),
    "too few labels": batch(ZEROS, {"labels": [0, 1, 2]}),
    "other key": batch(ZEROS, {"fine_labels": [0, 1, 2, 3]}),
    "too few images": batch(ZEROS[:3], GOOD),
    "array of floats": batch(ZEROS, GOOD, array(ZEROS, "f8")),
    "array of objects": batch(ZEROS, GOOD, array(ZEROS, "O8")),
    "array in Fortran order": batch(ZEROS, GOOD, array(ZEROS, fortran=b"\x88")),
    "array too short": batch(ZEROS, GOOD, array(ZEROS, raw=b"123")),
    "no array": batch(ZEROS, GOOD, b"N"),
    "array without a state": batch(ZEROS, GOOD, b"cnumpy\nndarray\n)R"),
    "no dict": b"\x80\x02].",
    "text": b"<html>Not found</html>",
    "a key that has no hash": b"\x80\x02}](](N\x65\x75.",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_pickles(tiny: Path, name: str) -> None:
    put("cifar10", 1, data_batch_5=DAMAGED[name])
    with pytest.raises(BadInputError, match="data_batch_5 is damaged or not what its name says") as raised:
        Cifar("cifar10", "train", 0)
    assert "\n" not in str(raised.value)


def test_a_binary_label_out_of_range(tiny: Path) -> None:
    data = bytearray(content("cifar10", 0, 0)[0])
    data[0] = 10
    put("cifar10", 0, test_batch=bytes(data))
    with pytest.raises(BadInputError, match="a label that is not from 0 to 9"):
        Cifar("cifar10", "test", 0)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, (f"touch {os.environ['EVIL']}",)


MALICIOUS = {
    "reduce": lambda: pickle.dumps({"data": Evil()}, 2),
    "protocol 0": lambda: pickle.dumps(Evil(), 0),
    "protocol 4": lambda: pickle.dumps({"data": Evil()}, 4),
    "inst": lambda: b"(S'touch evil'\nios\nsystem\n.",
    "numpy's own door": lambda: b"\x80\x02cnumpy\nload\nU\x04evil\x85R.",
    "builtin": lambda: b"\x80\x02cbuiltins\neval\nU\x011\x85R.",
    "dotted": lambda: b"\x80\x02cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
    "extension": lambda: b"\x80\x02\x82\x01.",
    "persistent": lambda: b"Pevil\n.",
    "memo": lambda: b"\x80\x02}r\xff\xff\xff\x7f.",
    "length": lambda: b"\x80\x02T\xff\xff\xff\x7fabc.",
    "build on a stand-in": lambda: b"\x80\x02}U\x01acnumpy\nndarray\n}U\x01bK\x01sbs.",
}  # fmt: skip


@pytest.mark.parametrize("name", MALICIOUS)
def test_malicious_pickles_run_nothing(tiny: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("EVIL", str(tiny / "evil"))
    put("cifar10", 1, test_batch=MALICIOUS[name]())
    with pytest.raises(BadInputError, match="test_batch is damaged or not what its name says"):
        Cifar("cifar10", "test", 0)
    assert not (tiny / "evil").exists()


def test_what_a_pickle_does_to_a_stand_in_ends_with_it() -> None:
    with pytest.raises(NotPlainError):
        read(b"\x80\x02cnumpy\nndarray\nN}U\x0c__setstate__K\x01s\x86b.")
    assert read(batch(ZEROS, GOOD))["data"].shape == (COUNT, PIXELS)


def test_protocol_0_and_every_flipped_byte_is_read_or_refused() -> None:
    names = b"(dp1\nS'num_vis'\np2\nI3072\nsS'label_names'\np3\n(lp4\nS'airplane'\np5\nas."
    assert read(names) == {"num_vis": 3072, "label_names": ["airplane"]}
    good = batch(ZEROS[:1], {"labels": [3]})
    for at in [*range(200), *range(len(good) - 8, len(good))]:
        for flip in (1, 128, 255):
            bad = bytearray(good)
            bad[at] ^= flip
            with contextlib.suppress(NotPlainError):
                assert isinstance(read(bytes(bad)), dict)

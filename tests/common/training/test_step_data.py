from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

from common.training.data import Keyed, StepChunks, StepIndices, StepSampler, loader


def test_a_sampler_started_anywhere_yields_the_rest_of_the_same_batches() -> None:
    whole = list(StepSampler(10, 3, steps=11, seed=4))
    assert len(whole) == 11
    for start in range(12):
        assert list(StepSampler(10, 3, steps=11, seed=4, start=start)) == whole[start:]
        assert len(StepSampler(10, 3, steps=11, seed=4, start=start)) == 11


def test_each_pass_shuffles_and_repeats_no_sample() -> None:
    batches = list(StepSampler(10, 3, steps=60, seed=4))
    passes = [[i for batch in batches[k : k + 3] for _, i in batch] for k in range(0, 60, 3)]
    assert all(len(set(indices)) == 9 and set(indices) <= set(range(10)) for indices in passes)
    assert len({tuple(indices) for indices in passes}) == 20
    assert len({frozenset(range(10)) - set(indices) for indices in passes}) > 1
    assert all(step == k for k, batch in enumerate(batches) for step, _ in batch)
    assert list(StepSampler(10, 3, steps=60, seed=5)) != batches


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be drawn"):
        StepSampler(2, 3, steps=1, seed=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_depends_on_seed_step_and_index_alone(workers: int) -> None:
    points = TensorDataset(torch.arange(6.0))

    def batches(start: int) -> list[torch.Tensor]:
        keyed = Keyed(points, seed=1, augment=jitter)
        return list(loader(keyed, StepSampler(6, 2, 9, seed=1, start=start), workers))

    whole = batches(0)
    torch.manual_seed(99)
    assert all(torch.equal(a, b) for a, b in zip(batches(4), whole[4:], strict=True))
    noise = torch.cat(whole) % 1
    assert len(set(noise.tolist())) == 18  # the same sample is augmented otherwise in each pass


def jitter(sample: tuple[torch.Tensor], draw: torch.Generator) -> torch.Tensor:
    return sample[0] + torch.rand((), generator=draw)


def test_without_augmentation_a_sample_is_itself() -> None:
    assert Keyed(TensorDataset(torch.arange(6.0)), seed=1)[(4, 2)] == (torch.tensor(2.0),)


@pytest.mark.parametrize(("steps", "chunk"), [(7, 1), (7, 3), (9, 3), (1, 5)])
def test_chunks_cover_every_step_once(steps: int, chunk: int) -> None:
    data = StepIndices(steps, chunk)
    chunks = list(data.train_dataloader())
    assert [step for one in chunks for step in one] == list(range(steps))
    assert len(chunks) == len(data.train_dataloader())
    for batches in range(len(chunks) + 1):
        data.load_state_dict({"start": data.done(batches)})
        assert list(data.train_dataloader()) == chunks[batches:]
        assert len(data.train_dataloader()) == len(StepChunks(0, steps, chunk)) == len(chunks)

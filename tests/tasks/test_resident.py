"""Splits in memory go to other processes without a copy, and nobody writes to what they share."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import pytest
import torch

from autoprune.tasks.augmenting import MixedImages
from autoprune.tasks.base import LabelledImages, Pixels, Split
from autoprune.tasks.resident import Resident
from autoprune.tasks.segmentation.resident import ResidentMasks


def labelled(dtype: torch.dtype, *augment: str) -> Resident:
    """Nine images of 16 x 12."""
    images = torch.randint(0, 200, (9, 16, 12, 3), generator=torch.Generator().manual_seed(1)).to(dtype)
    pixels = Pixels(mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0, augment=augment)
    return Resident(images=images, labels=torch.arange(9) % 4, pixels=pixels)


def masked() -> ResidentMasks:
    """The same images, with a mask each."""
    split = labelled(torch.uint8, "flip", "crop")
    masks = torch.arange(12, dtype=torch.uint8).expand(9, 16, 12).contiguous()
    return ResidentMasks(images=split.images, masks=masks, pixels=split.pixels)


SPLITS = {
    "plain": labelled(torch.float32),
    "flip": labelled(torch.uint8, "flip", "crop"),
    "operated": labelled(torch.uint8, "trivial_augment"),
    "mixed": MixedImages(unmixed=labelled(torch.uint8, "mixup"), classes=4),
    "masks": masked(),
}


def batches(split: Split) -> list[torch.Tensor]:
    """All tensors of an epoch with augmentation and of one without, in batches of all images and of four."""
    order = torch.arange(len(split))
    found = [batch for seed in (None, 5) for size in (9, 4) for batch in split.batches(order, size, seed=seed)]
    return [tensor for batch in found for tensor in batch]


def sent(split: Split) -> tuple[bytes, list[bytes]]:
    """What travels beside the arrays, and the arrays, in memory that cannot be written to."""
    buffers: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(split, protocol=5, buffer_callback=buffers.append)
    return rest, [bytes(buffer.raw()) for buffer in buffers]


def within(tensor: torch.Tensor, arrays: Sequence[bytes]) -> bool:
    """Whether a tensor lies in one of the arrays."""
    spans = [(torch.frombuffer(array, dtype=torch.uint8).data_ptr(), len(array)) for array in arrays]
    return any(start <= tensor.data_ptr() < start + size for start, size in spans)


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
@pytest.mark.parametrize("name", SPLITS)
def test_another_process_has_the_same_split_without_a_copy(name: str) -> None:
    split = SPLITS[name]
    rest, arrays = sent(split)
    received = pickle.loads(rest, buffers=arrays)

    assert len(rest) < 1500
    assert type(received) is type(split)
    assert received.fingerprint() == split.fingerprint()
    assert all(torch.equal(one, other) for one, other in zip(batches(received), batches(split), strict=True))
    inner = received.unmixed if isinstance(received, MixedImages) else received
    assert within(inner.images, arrays)
    if isinstance(inner, LabelledImages):
        assert within(inner.labels, arrays)


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
@pytest.mark.parametrize("name", SPLITS)
def test_batches_are_nobody_else_s(name: str) -> None:
    rest, arrays = sent(SPLITS[name])
    received = pickle.loads(rest, buffers=arrays)

    assert [tensor for tensor in batches(received) if within(tensor, arrays)] == []


def test_a_split_says_whether_it_lies_in_memory() -> None:
    class Elsewhere(Resident):
        in_memory = False

    pixels = Pixels(mean=(0.0,), std=(1.0,), scale=1.0, augment=())
    files = Elsewhere(images=torch.zeros(2, 8, 8, 1), labels=torch.zeros(2), pixels=pixels)

    assert {name for name, split in SPLITS.items() if split.in_memory} == set(SPLITS)
    assert not MixedImages(unmixed=files, classes=2).in_memory

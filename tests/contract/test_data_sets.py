"""What every data set by name promises; joined by a line in DATA_SETS. The files it needs are written by the test."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from autoprune.errors import DataError
from autoprune.tasks import data, data_spec


def write_nothing(folder):
    return {}


def arrays(shape, classes, dtype=np.uint8):
    random = np.random.default_rng(0)
    made = {}
    for part, count in (("train", 70), ("test", 30)):
        made[f"{part}_images"] = random.integers(0, 256, (count, *shape)).astype(dtype)
        made[f"{part}_labels"] = np.arange(count) % classes
    return made


def npz(name, shape, classes):
    def write(folder):
        np.savez(folder / f"{name}.npz", **arrays(shape, classes))
        return {}

    return write


def write_torchvision_cifar(folder):
    made = arrays((32, 32, 3), 10)
    target = folder / "cifar-10-batches-py"
    target.mkdir()
    for name, part in [*((f"data_batch_{i}", "train") for i in range(1, 6)), ("test_batch", "test")]:
        images, labels = made[f"{part}_images"], made[f"{part}_labels"]
        chosen = slice(14 * (int(name[-1]) - 1), 14 * int(name[-1])) if part == "train" else slice(None)
        rows = images[chosen].transpose(0, 3, 1, 2).reshape(-1, 3072)
        (target / name).write_bytes(pickle.dumps({"data": rows, "labels": labels[chosen].tolist()}))
    (target / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))
    return {}


def write_torchvision_mnist(folder):
    made = arrays((28, 28), 10)
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = made[f"{part}_images"], made[f"{part}_labels"].astype(np.uint8)
        header = np.array([2051, len(images), 28, 28], ">i4").tobytes()
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(
            np.array([2049, len(labels)], ">i4").tobytes() + labels.tobytes()
        )
    return {}


def write_folder(folder):
    random = np.random.default_rng(0)
    for part, count in (("train", 20), ("val", 7), ("test", 5)):
        for label in ("cat", "dog"):
            target = folder / "pets" / part / label
            target.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(random.integers(0, 256, (23, 31, 3)).astype(np.uint8)).save(target / f"{i}.png")
    return {"path": str(folder / "pets"), "size": 16, "workers": 0}


# name, how its files come about, (C, H, W), classes, images in train, validation and test
DATA_SETS = {
    "digits": ("digits", write_nothing, (1, 8, 8), 10, (1197, 300, 300)),
    "cifar10 npz": ("cifar10", npz("cifar10", (32, 32, 3), 10), (3, 32, 32), 10, (63, 7, 30)),
    "cifar100 npz": ("cifar100", npz("cifar100", (32, 32, 3), 5), (3, 32, 32), 5, (63, 7, 30)),
    "mnist npz": ("mnist", npz("mnist", (28, 28), 10), (1, 28, 28), 10, (63, 7, 30)),
    "fashion_mnist npz": ("fashion_mnist", npz("fashion_mnist", (28, 28, 1), 10), (1, 28, 28), 10, (63, 7, 30)),
    "cifar10 torchvision": ("cifar10", write_torchvision_cifar, (3, 32, 32), 10, (63, 7, 30)),
    "mnist torchvision": ("mnist", write_torchvision_mnist, (1, 28, 28), 10, (63, 7, 30)),
    "image_folder": ("image_folder", write_folder, (3, 16, 16), 2, (40, 14, 10)),
}


def forgiving_integrity(monkeypatch):
    from torchvision.datasets import CIFAR10

    # the test writes other pixels than the official ones, and torchvision compares checksums
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: True)


@pytest.mark.parametrize("case", DATA_SETS)
class TestDataSet:
    @pytest.fixture
    def loaded(self, case, tmp_path, monkeypatch):
        monkeypatch.setenv("AUTOPRUNE_DATA", str(tmp_path))
        forgiving_integrity(monkeypatch)
        name, write, *expected = DATA_SETS[case]
        spec = data_spec.DataSpec(name=name, augment=("flip", "crop"), **write(tmp_path))
        splits, source = data.load_splits(spec, "task.data")
        return splits, source.num_classes, expected

    def test_sizes_and_classes_are_as_stated(self, loaded):
        splits, classes, (shape, expected_classes, sizes) = loaded

        assert expected_classes == classes
        assert sizes == tuple(len(splits[name]) for name in ("train", "validation", "test"))
        inputs, labels = next(splits["validation"].batches(torch.arange(3), 3))
        assert (3, *shape) == inputs.shape
        assert torch.float32 == inputs.dtype
        assert torch.int64 == labels.dtype
        assert torch.equal(splits["validation"].labels[:3], labels)

    def test_batches_are_the_same_every_time_and_from_any_start(self, loaded):
        train = loaded[0]["train"]
        order = torch.tensor([5, 3, 11, 0, 7, 2, 13])

        everything = list(train.batches(order, 2, seed=17))
        later = list(train.batches(order, 2, seed=17, start=2))

        assert [2, 2, 2, 1] == [len(labels) for _, labels in everything]
        for (a, b), (c, d) in zip(everything[2:], later, strict=True):
            assert torch.equal(a, c)
            assert torch.equal(b, d)

    def test_augmentation_depends_on_the_seed_and_spares_validation(self, loaded):
        splits = loaded[0]
        order = torch.arange(7)

        def inputs(name, seed):
            return torch.cat([x for x, _ in splits[name].batches(order, 7, seed=seed)])

        assert not torch.equal(inputs("train", 1), inputs("train", 2))
        assert torch.equal(inputs("validation", 1), inputs("validation", None))

    def test_fingerprints_tell_splits_apart(self, loaded):
        splits = loaded[0]

        assert 3 == len({split.fingerprint() for split in splits.values()})
        assert splits["train"].fingerprint() == splits["train"].fingerprint()

    def test_missing_data_are_named(self, case, tmp_path, monkeypatch):
        name = DATA_SETS[case][0]
        if name == "digits":
            pytest.skip("comes with scikit-learn")
        monkeypatch.setenv("AUTOPRUNE_DATA", str(tmp_path / "empty"))
        spec = data_spec.DataSpec(name=name, path="pets" if name == "image_folder" else None)

        with pytest.raises(DataError, match=str(tmp_path / "empty")) as caught:
            data.load_splits(spec, "task.data")

        assert ("train/CLASS" if name == "image_folder" else f"{name}.npz") in str(caught.value)

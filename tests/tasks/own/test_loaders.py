"""DataLoaders and Datasets as splits: the same batches for the same seed, and every way in which data can be wrong."""

import itertools
import random
from collections import UserDict

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from user_tasks import Drawn, classes, images

from autoprune.errors import DataError
from autoprune.tasks.own.loaders import LoaderSplit


def split_of(data, name="train"):
    return LoaderSplit.of(data, name, name)


def batches_of(split, size=7, **options):
    return list(split.batches(torch.arange(len(split)), size, **options))


def numbers_in(split, **options):
    """Which items came, by their whole parts: noise lies between 0 and 3."""
    return [int(y) for _, labels in batches_of(split, **options) for y in labels]


@pytest.mark.parametrize("seed", [None, 5])
def test_batches_depend_on_the_seed_and_not_on_the_workers(seed):
    alone = batches_of(split_of(DataLoader(Drawn())), seed=seed)
    helped = batches_of(split_of(DataLoader(Drawn(), num_workers=2)), seed=seed)

    for (x, y), (other_x, other_y) in zip(alone, helped, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)
    assert [7, 7, 7, 2] == [len(y) for _, y in alone]


def test_other_seeds_draw_otherwise_and_later_batches_are_what_they_would_have_been():
    split = split_of(Drawn())
    first, other, late = batches_of(split, seed=5), batches_of(split, seed=6), batches_of(split, seed=5, start=2)

    assert not torch.equal(first[0][0], other[0][0])
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first[2:], late, strict=True))


def test_without_a_seed_an_item_is_the_same_wherever_it_stands():
    split = split_of(Drawn())
    ((x, _),) = split.batches(torch.tensor([3, 11]), 2)
    ((other, _),) = split.batches(torch.tensor([11, 5]), 2)

    assert torch.equal(x[1], other[0])


def test_the_callers_random_numbers_go_on_as_if_nothing_had_been_drawn():
    def drawn():
        return torch.rand(1).item(), random.random(), np.random.rand()  # noqa: NPY002

    def seed():
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002

    seed()
    expected = drawn()
    seed()
    batches_of(split_of(DataLoader(Drawn(), sampler=SubsetRandomSampler([3, 1]))), seed=5)

    assert expected == drawn()


def test_a_subset_sampler_says_which_items_there_are():
    split = split_of(DataLoader(TensorDataset(images(20), torch.arange(20)), sampler=SubsetRandomSampler([3, 11, 17])))

    assert 3 == len(split)
    assert {3, 11, 17} == set(numbers_in(split))
    assert {3, 11, 17} == set(numbers_in(split, seed=5))


def test_a_weighted_sampler_draws_as_its_weights_and_the_seed_say():
    weights = [0.0] * 10 + [1.0] * 10
    sampler = WeightedRandomSampler(weights, 40, generator=torch.Generator().manual_seed(3))
    split = split_of(DataLoader(TensorDataset(images(20), torch.arange(20)), sampler=sampler))

    assert 40 == len(split)
    assert min(numbers_in(split, seed=5)) >= 10
    assert numbers_in(split, seed=5) == numbers_in(split, seed=5) != numbers_in(split, seed=6)


def test_parts_of_items_become_tuples_and_what_the_users_function_lists_stays_a_list():
    data = TensorDataset(images(3), classes(3))
    nested = [((x, x), y) for x, y in data]
    ((inputs, _labels),) = batches_of(split_of(nested))
    listing = DataLoader(nested, collate_fn=lambda items: [[x for (x, _), _ in items], [y for _, y in items]])
    ((listed, _),) = batches_of(split_of(listing))

    assert (3, 1, 7, 7) == tuple(inputs[1].shape)
    assert isinstance(inputs, tuple)
    assert isinstance(listed, list)
    assert 3 == len(listed)


def test_mappings_of_other_kinds_become_plain_ones():
    collate = lambda items: UserDict(x=torch.stack([x for x, _ in items]))  # noqa: E731
    (batch,) = batches_of(split_of(DataLoader(TensorDataset(images(3), classes(3)), collate_fn=collate)), device="meta")

    assert dict is type(batch)
    assert "meta" == batch["x"].device.type


class Endless(Sampler):
    def __iter__(self):
        return itertools.cycle([1, 2])


class Miscounted(Endless):
    def __len__(self):
        return 5


class Stream(IterableDataset):
    def __iter__(self):
        return iter(Drawn())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TensorDataset(torch.zeros(0, 1)), "train data are empty"),
        (Stream(), "a Stream has no items by number"),
        (DataLoader(Stream()), "its dataset, a Stream"),
        (iter([1, 2]), "a list_iterator has no items by number"),
        (7, "a int has no items"),
        (DataLoader(Drawn(), sampler=Endless()), "a Endless has no length"),
        (DataLoader(Drawn(), sampler=Miscounted()), "draws more items, its length is 5"),
        (DataLoader(Drawn(), batch_sampler=[[1, 2], [3]]), "a list decides what lies together"),
        (DataLoader(Drawn(), sampler=["a"]), "draws str"),
    ],
)
def test_data_that_cannot_be_split_are_refused(data, message):
    with pytest.raises(DataError, match=message):
        split_of(data)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_item_that_raises_is_named_with_its_file(workers):
    split = split_of(DataLoader(torch.utils.data.Subset(Drawn(broken=11), range(5, 20)), num_workers=workers))

    with pytest.raises(
        DataError, match=r"item 6 of the train data \(/photos/11.png\): OSError: image file is truncated$"
    ):
        batches_of(split)


def test_items_that_do_not_fit_together_are_one_line():
    with pytest.raises(DataError, match="the train data: its items make no batch: RuntimeError"):
        batches_of(split_of([(torch.zeros(3), 0), (torch.zeros(5), 1)]))


def test_a_batch_of_another_structure_is_refused():
    items = [(torch.zeros(3), 0)] * 7 + [(torch.zeros(3), 0.5)] * 7

    with pytest.raises(DataError, match=r"a batch is \(float32 2-d, float64 1-d\).*\(float32 2-d, int64 1-d\)"):
        batches_of(split_of(items))


def test_fingerprints_tell_data_apart():
    same, other = (split_of(TensorDataset(images(20, seed), classes(20))).fingerprint() for seed in (0, 1))

    assert same == split_of(TensorDataset(images(20, 0), classes(20))).fingerprint()
    assert same != other
    assert same != split_of(TensorDataset(images(20, 0), classes(20) + 1)).fingerprint()


def test_torchs_own_batch_sampler_is_no_obstacle():
    loader = DataLoader(Drawn(), batch_sampler=BatchSampler(SubsetRandomSampler([1, 2, 3]), 2, drop_last=True))

    assert 3 == len(split_of(loader))

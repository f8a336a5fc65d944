"""Splits made of what users have: a DataLoader or a Dataset, with its transforms, sampler and collate function.

Every item is drawn with random numbers of its own (torch's, NumPy's and Python's), so that batches depend on the seed
alone and not on how many processes fetch them. A list of tensors that torch's own collate function makes of an item's
parts becomes a tuple: in batches a list has one entry per image (`training/batch_structure.py`).
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from autoprune.errors import DataError, first_line
from autoprune.tasks.base import Split
from autoprune.training.batch_structure import describe_structure, moved
from autoprune.training.processes import ALONE, Processes
from autoprune.training.protocols import Batch
from autoprune.training.seeds import random_stream

#: Items that a fingerprint reads, spread over the split.
FINGERPRINT_ITEMS = 64

#: Most images of a pass where neither loader nor user say how many fit into memory.
IMAGES_PER_PASS = 128

ALLOWED = "a DataLoader, or a Dataset with __len__ and __getitem__"


@dataclass(frozen=True, kw_only=True, eq=False)
class LoaderSplit(Split):
    """The items of a DataLoader's dataset that its sampler draws.

    Fields:
        name: of the split, for errors.
        loader: its dataset, sampler, collate function and workers are used; its batch size is the recipe's affair.
    """

    name: str
    loader: DataLoader[Any]
    processes: Processes = ALONE

    @classmethod
    def of(cls, data: object, name: str, where: str) -> LoaderSplit:
        """The split of a DataLoader or Dataset.

        Raises:
            DataError: it is neither, it is empty or endless, or its items have no numbers.
        """
        loader = data if isinstance(data, DataLoader) else _loader_of(data, where)
        _check_loader(loader, where)
        split = cls(name=name, loader=loader)
        if not len(split):
            raise DataError(f"the {name} data are empty", where=where, allowed="one item or more")
        return split

    def __len__(self) -> int:
        """Number of items that the sampler draws."""
        return len(self._drawn) if self._drawn is not None else len(self.loader.dataset)  # type: ignore[arg-type]

    def batches(
        self, order: Tensor, batch_size: int, *, device: str = "cpu", seed: int | None = None, start: int = 0
    ) -> Iterator[Batch]:
        """See `Split.batches`. Without a seed an item has the same random numbers whenever it is drawn.

        Raises:
            DataError: an item or a batch cannot be made, or a batch has another structure than the first item's.
        """
        drawn = self._drawn if seed is None else _draws_of(self.loader, seed, self.name)
        chosen = order.tolist() if drawn is None else [drawn[place] for place in order.tolist()]
        jobs = [(index, 0 if seed is None else seed, index if seed is None else k) for k, index in enumerate(chosen)]
        groups = [jobs[low : low + batch_size] for low in range(start * batch_size, len(jobs), batch_size)]
        for batch in self._collated([self.processes.part_of(group) for group in groups]):
            self._check_structure(batch)
            yield moved(batch, device)

    def to(self, device: str) -> LoaderSplit:
        """Itself: items are made one by one."""
        return self

    def of_process(self, processes: Processes) -> LoaderSplit:
        """See `Split.of_process`: other images are not decoded."""
        return replace(self, processes=processes)

    def fingerprint(self) -> str:
        """SHA-256 over the number of items and the content of some of them, `FINGERPRINT_ITEMS` at most."""
        count = min(len(self), FINGERPRINT_ITEMS)
        places = torch.linspace(0, len(self) - 1, count).long()
        digest = hashlib.sha256(f"{len(self)}".encode())
        for batch in self.batches(places, 1):
            for leaf in tree_leaves(batch):
                held = leaf.detach().cpu().contiguous().numpy().tobytes() if isinstance(leaf, Tensor) else str(leaf)
                digest.update(held if isinstance(held, bytes) else held.encode())
        return digest.hexdigest()

    @property
    def images_per_pass(self) -> int:
        """The batch size of a DataLoader: what its user knows to fit into memory."""
        size = self.loader.batch_size
        return size if size is not None and size > 1 else IMAGES_PER_PASS

    @cached_property
    def structure(self) -> str:
        """How a batch of the first item is built, in words; see `describe_structure`."""
        first = 0 if self._drawn is None else self._drawn[0]
        return describe_structure(next(self._collated([[(first, 0, first)]])))

    @cached_property
    def _drawn(self) -> Sequence[int] | None:
        return _draws_of(self.loader, 0, self.name)

    def _collated(self, groups: Sequence[Sequence[_Job]]) -> Iterator[Batch]:
        """The batches of these groups of items, on the CPU."""
        given, workers = self.loader, self.loader.num_workers
        loader = DataLoader(
            _SeededItems(given.dataset, self.name),  # type: ignore[arg-type]
            batch_sampler=groups,  # type: ignore[arg-type]
            collate_fn=_Collate(given.collate_fn, self.name),
            num_workers=workers,
            worker_init_fn=given.worker_init_fn,
            multiprocessing_context=given.multiprocessing_context if workers else None,
            timeout=given.timeout,
            generator=torch.Generator(),  # of its own: else making the loader would draw from the training's stream
        )
        batches = iter(loader)
        while True:
            with _global_randomness_kept():
                batch = next(batches, None)
            if batch is None:
                return
            if isinstance(batch, DataError):
                raise batch
            yield batch

    def _check_structure(self, batch: Batch) -> None:
        found = describe_structure(batch)
        if found != self.structure:
            allowed = f"{self.structure}, as of its first item"
            raise DataError(f"a batch is {found}", where=f"the {self.name} data", allowed=allowed)


#: Index of an item, and the two numbers that its random draws depend on.
_Job = tuple[int, int, int]


@dataclass(frozen=True)
class _SeededItems:
    """A dataset's items by job, or why one cannot be made: an exception would lose its type between processes."""

    dataset: Any
    name: str

    def __getitem__(self, job: _Job) -> Any:
        index, *words = job
        seed = int(np.random.SeedSequence(words).generate_state(1)[0])
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - what users' transforms draw from
        try:
            return self.dataset[index]
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            place = f"item {index} of the {self.name} data{_file_of(self.dataset, index)}"
            return DataError(f"{type(error).__name__}: {first_line(error)}", where=place)


@dataclass(frozen=True)
class _Collate:
    """A batch, or the first reason why there is none."""

    collate: Callable[[list[Any]], Any]
    name: str

    def __call__(self, items: list[Any]) -> Any:
        failed = next((item for item in items if isinstance(item, DataError)), None)
        if failed is not None:
            return failed
        try:
            batch = self.collate(items)
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            what = f"its items make no batch: {type(error).__name__}: {first_line(error)}"
            return DataError(what, where=f"the {self.name} data")
        if self.collate is default_collate:
            return _as_tuples(batch)
        # of other mappings, such as tokenizers', torch would not know that they hold tensors
        return dict(batch) if isinstance(batch, Mapping) else tuple(batch) if isinstance(batch, list) else batch


def _as_tuples(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return {name: _as_tuples(item) for name, item in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(_as_tuples, batch))
    return tuple(map(_as_tuples, batch)) if isinstance(batch, (list, tuple)) else batch


def _loader_of(data: object, where: str) -> DataLoader[Any]:
    if isinstance(data, IterableDataset) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        what = f"a {type(data).__name__} has no items by number"
        raise DataError(what, where=where, allowed=ALLOWED)
    return DataLoader(data, batch_size=1)  # type: ignore[arg-type]


def _check_loader(loader: DataLoader[Any], where: str) -> None:
    if isinstance(loader.dataset, IterableDataset) or not hasattr(loader.dataset, "__len__"):
        what = f"its dataset, a {type(loader.dataset).__name__}, has no items by number"
        raise DataError(what, where=where, allowed=ALLOWED)
    if loader.batch_sampler is not None and type(loader.batch_sampler) is not BatchSampler:
        what = f"a {type(loader.batch_sampler).__name__} decides what lies together in a batch"
        raise DataError(what, where=where, allowed="a `sampler`; the recipe says how large batches are")


def _draws_of(loader: DataLoader[Any], seed: int, name: str) -> Sequence[int] | None:
    """The items that the loader's sampler draws with this seed; None = all of them, each once.

    Raises:
        DataError: it draws without end, or no numbers of items.
    """
    sampler: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler.sampler  # type: ignore[attr-defined]
    plain = isinstance(sampler, SequentialSampler) or (isinstance(sampler, RandomSampler) and not sampler.replacement)
    if plain and len(sampler) == len(loader.dataset):  # type: ignore[arg-type]
        return None
    where = f"the sampler of the {name} data"
    if not hasattr(sampler, "__len__"):
        raise DataError(f"a {type(sampler).__name__} has no length", where=where, allowed="a sampler with __len__")
    with _sampling(sampler, seed):
        drawn = list(itertools.islice(iter(sampler), len(sampler) + 1))
    if len(drawn) != len(sampler):
        more = "more" if len(drawn) > len(sampler) else f"{len(drawn)}"
        raise DataError(f"it draws {more} items, its length is {len(sampler)}", where=where)
    if not all(
        isinstance(index, (int, np.integer)) or (isinstance(index, Tensor) and not index.dim()) for index in drawn
    ):
        raise DataError(f"it draws {type(drawn[0]).__name__}", where=where, allowed="numbers of items")
    return [int(index) for index in drawn]


@contextmanager
def _sampling(sampler: Any, seed: int) -> Iterator[None]:
    """Within it a sampler draws as the seed says, whether it has a generator of its own or not."""
    own = getattr(sampler, "generator", None)
    with _global_randomness_kept():
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - what users' samplers draw from
        if own is not None:
            sampler.generator = random_stream(seed)
        try:
            yield
        finally:
            if own is not None:
                sampler.generator = own


@contextmanager
def _global_randomness_kept() -> Iterator[None]:
    """Afterwards torch's CPU generator, Python's and NumPy's go on as if nothing had been drawn."""
    torch_state, own, arrays = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(own)
        np.random.set_state(arrays)  # noqa: NPY002


def _file_of(dataset: Any, index: int) -> str:
    """` (path)` where the dataset lists the files of its items, as torchvision's folders and Ultralytics' do."""
    while hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        dataset, index = dataset.dataset, int(dataset.indices[index])
    listed = next((found for name in ("samples", "imgs", "im_files") if (found := getattr(dataset, name, None))), None)
    if not isinstance(listed, Sequence) or not 0 <= index < len(listed):
        return ""
    entry = listed[index]
    return f" ({entry[0] if isinstance(entry, (tuple, list)) else entry})"

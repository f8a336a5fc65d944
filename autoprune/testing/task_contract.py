"""TaskContract: what every task owes, as a class of tests that a task's own test extends.

class TestMine(TaskContract):
def make_task(self):
return autoprune.load_task({"kind": "mine:MyTask", "size": 32})
"""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.errors import InputError
from autoprune.recipe import Training
from autoprune.schema import to_plain
from autoprune.tasks.base import Split, Task
from autoprune.tasks.checks import check_task, first_batch
from autoprune.training.batch_structure import describe_structure, images_in, moved, repeated
from autoprune.training.evaluate import evaluate
from autoprune.training.fit import fit
from autoprune.training.loss_mode import asked_for_losses
from autoprune.training.processes import Processes
from autoprune.training.runtime import Runtime


class TaskContract:
    """Tests of one task. Its data should be small: a dozen images do, and models and batches are run many times."""

    def make_task(self) -> Task:
        """The task to be tested, made anew; the only thing that a subclass says."""
        raise NotImplementedError

    @pytest.fixture
    def task(self) -> Task:
        """The task, made once for all tests of the class."""
        return _made(type(self))[0]

    @pytest.fixture
    def model(self) -> nn.Module:
        """Its dense model; tests leave it as it is."""
        return _made(type(self))[1]

    def test_it_works_on_a_few_images(self, task: Task, model: nn.Module) -> None:
        """Loss, gradient and metric are what a search needs."""
        check_task(task, model)

    def test_the_same_seed_gives_the_same_batches(self, task: Task) -> None:
        """Whenever and however often they are asked for, with and without a seed."""
        for seed in (None, 7):
            assert _equal(_batches(task.train, seed=seed), _batches(task.train, seed=seed))

    def test_batches_that_are_left_out_change_no_others(self, task: Task) -> None:
        """A training that is resumed goes on with the batches it would have had."""
        for seed in (None, 7):
            assert _equal(_batches(task.train, seed=seed)[1:], _batches(task.train, seed=seed, start=1))

    def test_processes_share_out_every_batch(self, task: Task) -> None:
        """Each gets its images as they are in the whole batch, augmentation included."""
        for seed in (None, 7):
            for number in range(2):
                processes = Processes(rank=number, count=2)
                wanted = [processes.part_of(batch) for batch in _batches(task.train, seed=seed)]
                assert _equal(wanted, _batches(task.train.of_process(processes), seed=seed))

    def test_batches_hold_the_images_of_their_order(self, task: Task) -> None:
        """As many as were asked for, in their order."""
        count = min(5, len(task.validation))
        batch = next(iter(task.validation.batches(torch.arange(count), count)))
        backwards = next(iter(task.validation.batches(torch.arange(count).flip(0), count)))

        assert images_in(batch) == count
        if count > 1:
            assert not _equal(batch, backwards)

    def test_all_splits_yield_the_same_structure(self, task: Task) -> None:
        """What is trained on, selected by and tested with differs in nothing but its images."""
        splits = [split for split in (task.train, task.validation, task.test) if split is not None]

        assert len({describe_structure(first_batch(split, "split", task)) for split in splits}) == 1

    def test_the_caller_s_random_numbers_are_not_drawn(self, task: Task) -> None:
        """Batches, networks and metrics have random streams of their own."""
        before = torch.get_rng_state()
        _batches(task.train, seed=7)
        task.build(3)
        task.example()

        assert torch.equal(before, torch.get_rng_state())

    def test_fingerprints_are_of_the_data(self, task: Task) -> None:
        """The same whenever they are taken, another one for other data."""
        assert task.train.fingerprint() == task.train.fingerprint()
        assert task.train.fingerprint() != task.validation.fingerprint()

    def test_networks_are_built_in_eval_mode_with_the_weights_of_the_seed(self, task: Task) -> None:
        """On the CPU, and no two share a tensor."""
        first, second = task.build(3), task.build(3)

        assert not first.training
        assert {tensor.device.type for tensor in first.state_dict().values()} == {"cpu"}
        assert _equal(dict(first.state_dict()), dict(second.state_dict()))
        assert not {p.data_ptr() for p in first.parameters()} & {p.data_ptr() for p in second.parameters()}

    def test_the_dense_model_is_the_same_every_time(self, task: Task, model: nn.Module) -> None:
        """And has the tensors of the network that is built."""
        again, built = task.model(), task.build()

        assert not again.training
        assert _equal(dict(model.state_dict()), dict(again.state_dict()))
        assert _shapes(built) == _shapes(again)

    def test_the_model_runs_on_the_example_and_on_several_of_it(self, task: Task, model: nn.Module) -> None:
        """One image, as a tuple of positional inputs on the CPU."""
        example = task.example()

        assert isinstance(example, tuple)
        assert images_in(example) == 1
        with torch.inference_mode():
            model(*example)
            model(*repeated(example, 3))

    def test_the_model_can_be_pruned(self, task: Task, model: nn.Module) -> None:
        """It is traced with the example; a cut model costs less and still runs and trains."""
        graph = trace(model, task.example())
        keep = Keep.of({group.id: range((group.size + 1) // 2) for group in graph.prunable})
        pruned = prune(model, graph, keep)

        assert graph.prunable
        assert cost(graph, keep).flops < cost(graph, Keep.all()).flops
        assert torch.isfinite(task.loss(pruned.train(), first_batch(task.train, "train", task)).value)

    def test_the_loss_of_a_batch_is_one_number(self, task: Task, model: nn.Module) -> None:
        """In float32, whatever the precision of the outputs; asked for as methods do, it is the same each time."""
        batch = first_batch(task.train, "train", task)
        with asked_for_losses(model):
            first, second = (task.loss(model, batch).value for _ in range(2))

        assert first.dtype == torch.float32
        assert first.shape == ()
        assert torch.equal(first, second)

    def test_a_short_training_changes_the_weights_in_the_same_way_each_time(self, task: Task, model: nn.Module) -> None:
        """Two steps of a few images."""
        size = min(4, len(task.train), task.images_per_pass)
        training, trained = Training(images=2 * size, batch_size=size, lr=1e-3), []
        for _ in range(2):
            twin = copy.deepcopy(model)
            fit(twin, task, training, Runtime(channels_last=True), images=training.images, seed=5)
            trained.append(dict(twin.state_dict()))

        assert _equal(*trained)
        assert not _equal(trained[0], dict(model.state_dict()))

    def test_the_metric_is_a_number_of_its_range(self, task: Task, model: nn.Module) -> None:
        """The same each time, and as `metric_spec` says."""
        split, spec = _Few(task.validation), task.metric_spec
        value = evaluate(model, split, task, Runtime())
        ends = [end for end in (spec.best, spec.worst) if end is not None]

        assert value == evaluate(model, split, task, Runtime())
        assert not spec.bounded or min(ends) <= value <= max(ends)

    def test_a_teacher_is_near_itself_or_there_is_none(self, task: Task, model: nn.Module) -> None:
        """The distance of outputs to themselves is none; a task without distances says so in one line."""
        with asked_for_losses(model):
            outputs = task.loss(model, first_batch(task.train, "train", task)).outputs
        try:
            distance = task.distillation(outputs, outputs, 4.0)
        except InputError:
            return
        assert abs(distance.item()) < 1e-5

    def test_what_is_written_down_is_plain_data(self, task: Task) -> None:
        """The mapping that it was read from, and the facts of its inputs, as JSON holds them."""
        assert json.loads(json.dumps(to_plain(task.spec))) == to_plain(task.spec)
        json.dumps(to_plain(task.input_facts()))

    def test_batches_can_move(self, task: Task) -> None:
        """Every tensor of a batch follows to another device."""
        batch = moved(first_batch(task.train, "train", task), "meta")

        assert {leaf.device.type for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)} == {"meta"}


@lru_cache(maxsize=1)
def _made(contract: type[TaskContract]) -> tuple[Task, nn.Module]:
    """The task of a contract and its dense model; those of the class whose tests run."""
    task = contract().make_task()
    return task, task.model()


class _Few:
    """The first images of a split."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return min(8, len(self.split))

    def batches(self, order: Tensor, batch_size: int, **options: Any) -> Any:
        return self.split.batches(order, batch_size, **options)

    def to(self, _device: str) -> _Few:
        return self


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _batches(split: Split, **options: Any) -> list[Any]:
    """Two batches of two images each, the last in the split first."""
    order = torch.arange(len(split)).flip(0)[:4]
    return list(split.batches(order, 2, **options))


def _equal(first: Any, second: Any) -> bool:
    """Whether two structures hold the same tensors and values."""
    left, right = tree_leaves(first), tree_leaves(second)
    return len(left) == len(right) and all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
        for a, b in zip(left, right, strict=True)
    )

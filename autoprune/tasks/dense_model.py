"""The `model:` mapping of a task: how the dense network is built, and where its trained weights come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autoprune.errors import InputError, ModelError, first_line
from autoprune.recipe import Training, stable_hash
from autoprune.schema import expect_mapping, read
from autoprune.tasks.base import Task
from autoprune.tasks.own_network import as_network
from autoprune.tasks.user_code import call, data_folder, load_function
from autoprune.tasks.weight_files import check_writable, digest_of, find, find_weights, load_weights, save_weights
from autoprune.training.batch_structure import repeated
from autoprune.training.fit import fit
from autoprune.training.runtime import Runtime, pick_device

#: Gives plain data.
Facts = Callable[[], Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The `model:` mapping of a task.

    Fields:
        name: one of the task's own networks, such as `resnet20` or `unet`, `torchvision/NAME`, `timm/NAME`.
        factory: instead of a name, `module:function` returning the dense model.
        arguments: passed to the model's constructor or to `factory`.
        checkpoint: file with the trained weights, absolute, in the current folder or in $AUTOPRUNE_DATA.
        checkpoint_key: where in the file the weights are, if several sets of tensors in it fit: the keys that lead to
            them, and the prefix of their names, joined by dots, `ema` for instance.
        train: instead of a checkpoint, how to train the dense model (the keys of `space.training`, and `seed`); done
            once and kept under $AUTOPRUNE_DATA/trained. `{images: 0}` asks for the untrained network.
    """

    name: str | None = None
    factory: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    checkpoint_key: str | None = None
    train: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """How the dense model is trained when there is no checkpoint."""

    training: Training
    seed: int


@dataclass(frozen=True, kw_only=True)
class DenseModel:
    """How a task's dense network is built and where its weights come from; what it can do is its task's affair.

    Fields:
        pretraining: how it is trained, if it is.
        where: the path of the `model:` mapping, for errors.
    """

    spec: ModelSpec
    pretraining: Pretraining | None
    where: str

    def build(self, by_name: Callable[[], nn.Module], seed: int) -> nn.Module:
        """A new network with the weights that its constructor draws with this seed; in eval mode, on the CPU.

        Args:
            by_name: builds the network that `spec.name` names; not called if there is a factory.

        Raises:
            ModelError: the factory fails or returns something else.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if self.spec.factory is None:
                return by_name().to("cpu").eval()
            return as_network(self._call_factory(self.spec.factory), self.where)

    def trained(self, task: Task, facts: Facts) -> nn.Module:
        """The network that `task.build` gives, with its trained weights, in eval mode.

        Args:
            facts: gives what decides the weights of a training beside architecture and recipe, such as the data's
                fingerprint and the loss, in plain data; only asked for if there is one, as data may be large.

        Raises:
            ModelError: the checkpoint does not fit, or there are no trained weights.
        """
        model = task.build()
        if self.spec.checkpoint is not None:
            load_weights(model, self._checkpoint(), self.spec.checkpoint_key)
        elif self.pretraining is not None:
            self._train(model, task, self.pretraining, facts)
        elif self.spec.factory is None and not set(self.spec.arguments) & {"weights", "pretrained"}:
            raise ModelError(f"no trained weights for {self.spec.name}", where=self.where, allowed="checkpoint, train")
        return model.eval()

    def weights_remark(self, model: nn.Module) -> str:
        """Where in the checkpoint the weights of the model are, in a sentence; empty if it is nothing but them."""
        if self.spec.checkpoint is None:
            return ""
        place = find_weights(model, self._checkpoint(), self.spec.checkpoint_key).place
        return f"The weights in {self.spec.checkpoint} are those {place}." if place else ""

    def _checkpoint(self) -> Path:
        return find(str(self.spec.checkpoint), f"{self.where}.checkpoint")

    def _call_factory(self, reference: str) -> object:
        factory = load_function(reference, f"{self.where}.factory")
        return call(reference, factory, self.spec.arguments, where=self.where, kind=ModelError)

    def _train(self, model: nn.Module, task: Task, how: Pretraining, facts: Facts) -> None:
        """Fill `model` from the cache, or train it and fill the cache."""
        if how.training.images == 0:
            return
        folder = data_folder() / "trained"
        file = folder / f"{_training_key(model, how, facts)}.safetensors"
        if file.is_file():
            load_weights(model, file)
            return
        check_writable(folder, f"{self.where}.train")
        _train_into_cache(model, task, how, file)


def read_dense_model(data: object, where: str, check_name: Callable[[str, str], object]) -> DenseModel:
    """Read a `model:` mapping.

    Args:
        check_name: given a name and where it stands, raises `ModelError` if the task knows no such network.

    Raises:
        InputError: the mapping is wrong.
    """
    spec = read(ModelSpec, data, where)
    if (spec.name is None) == (spec.factory is None):
        raise InputError("give `name` or `factory`, one of the two", where=where)
    if spec.checkpoint is not None and spec.train is not None:
        raise InputError("give `checkpoint` or `train`, not both", where=where)
    if spec.checkpoint is None and spec.checkpoint_key is not None:
        raise InputError("there is no checkpoint", where=f"{where}.checkpoint_key", allowed="with `checkpoint`")
    if spec.name is not None:
        check_name(spec.name, f"{where}.name")
    return DenseModel(spec=spec, pretraining=_read_pretraining(spec.train, f"{where}.train"), where=where)


@torch.inference_mode()
def outputs_for_two_images(model: nn.Module, example: tuple[Any, ...], where: str) -> Any:
    """What a model gives for twice the example; for the task to check.

    Args:
        example: see `Task.example`.

    Raises:
        ModelError: the forward pass fails.
    """
    met: list[tuple[nn.Conv2d, int]] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: met.append((module, inputs[0].shape[1])))
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        return model(*repeated(example, 2))
    except Exception as error:  # a forward pass may raise anything
        what, allowed = _why_it_cannot_run(model, example, met[0] if met else None, error)
        raise ModelError(what, where=where, allowed=allowed) from error
    finally:
        for hook in hooks:
            hook.remove()


def _why_it_cannot_run(
    model: nn.Module, example: tuple[Any, ...], first: tuple[nn.Conv2d, int] | None, error: Exception
) -> tuple[str, str]:
    """What is wrong and what is allowed.

    Args:
        first: the first convolution that was called, and the channels of its input.
    """
    inputs = _describe_inputs(example)
    if first is not None and first[0].in_channels != first[1]:
        wanted, channels = first[0].in_channels, _channels_of(example)
        if first[1] == channels:
            what = f"the model takes images of {wanted} channels, the data have {inputs} (channels x height x width)"
            return what, f"images of {wanted} channels, or a model for {channels}"
    what = f"the model cannot run on {inputs}: {first_line(error, 200)}"
    if isinstance(error, TypeError) and f"{type(model).__name__}.forward()" in str(error):
        return what, "a network whose forward takes the images alone: wrap it in a torch.nn.Module that does"
    return what, ""


def _channels_of(example: tuple[Any, ...]) -> int | None:
    """Channels of the images, if they are the only input."""
    alone = len(example) == 1 and isinstance(example[0], Tensor) and example[0].dim() == 4
    return int(example[0].shape[1]) if alone else None


def _describe_inputs(example: tuple[Any, ...]) -> str:
    """`3x32x32 images`, for one input; the shapes of all tensors where there are more."""
    if len(example) == 1 and isinstance(example[0], Tensor):
        return f"{'x'.join(map(str, example[0].shape[1:]))} images"
    return f"inputs of shapes {[tuple(leaf.shape) for leaf in tree_leaves(example) if isinstance(leaf, Tensor)]}"


def _read_pretraining(data: Mapping[str, Any] | None, where: str) -> Pretraining | None:
    if data is None:
        return None
    fields = dict(expect_mapping(data, where))
    seed = fields.pop("seed", 0)
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError(f"{seed!r} is no seed", where=f"{where}.seed", allowed="0 to 2**32 - 1")
    training = read(Training, fields, where)
    if training.distill:
        raise InputError("the dense model has no teacher", where=f"{where}.distill", allowed="0")
    return Pretraining(training=training, seed=seed)


def _train_into_cache(model: nn.Module, task: Task, how: Pretraining, file: Path) -> None:
    # fp32 and not the faster of two measured types: the key must decide the weights
    runtime = Runtime(device=pick_device("auto"), precision="fp32", channels_last=True)
    fit(model, task, how.training, runtime, images=how.training.images, seed=how.seed)
    save_weights(model.to("cpu"), file)


def _training_key(model: nn.Module, how: Pretraining, facts: Facts) -> str:
    """Everything that decides the trained weights: architecture and first weights, the task's facts, recipe."""
    return stable_hash([str(model), digest_of(model), list(facts()), how])

"""A pruned model on disk: safetensors and JSON, no pickle; it loads into what the model factory builds."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.low_rank import decomposed, hollow
from autoprune.engine.surgery.prune import sizes_after, sync_sizes
from autoprune.engine.surgery.tensors import copy_with, kept_entries, named_tensors
from autoprune.errors import ArtifactError, InputError, first_line
from autoprune.files import writing, written_whole

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"

FORMAT = 3


def save(
    folder: str | Path, model: nn.Module, graph: ChannelGraph, keep: Keep, *, info: Mapping[str, Any] | None = None
) -> Path:
    """Write a pruned model; nothing is left behind if writing fails.

    Args:
        folder: must not exist yet, or be empty.
        model: the pruned model.
        graph: of the dense model.
        keep: what the model was cut to.
        info: plain data about where it comes from (recipe, accuracy), kept in the JSON.

    Raises:
        InputError: the folder exists and is not empty, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError("exists and is not empty", where=str(folder), allowed="a new or empty folder")
    with writing(folder), written_whole(folder) as unfinished:
        unfinished.mkdir(parents=True)
        _write_model(unfinished, model, graph, keep, info or {})
        unfinished.chmod(0o755)
    return folder


def load(folder: str | Path, model: Callable[[], nn.Module]) -> nn.Module:
    """The pruned model of `folder`, in eval mode on the CPU.

    Args:
        folder: written by `save`.
        model: the factory of the dense model; its weights do not matter, its names and shapes do.

    Raises:
        ArtifactError: a file is missing or changed (checksum), or the factory's model is not the one that was pruned.
    """
    folder = Path(folder)
    description = describe(folder)
    with _described(folder):
        tensors = _read_weights(folder, description)
    dense = model()
    with _described(folder):
        try:
            dense = hollow(dense, description["decomposed"])
        except InputError as error:
            raise ArtifactError(f"the factory's model is another: {error}", where=str(folder)) from error
        pruned = _cut_like(dense, description, folder)
        _add_parameters(pruned, description["added"], tensors)
        _fill_tensors(pruned, tensors, folder)
    return pruned.eval()


@contextlib.contextmanager
def _described(folder: Path) -> Iterator[None]:
    """Within it a description with other things in it than `save` writes is an `ArtifactError`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        what = f"the description was changed: {type(error).__name__}: {first_line(error)}"
        raise ArtifactError(what, where=str(folder / DESCRIPTION), allowed="a file as autoprune wrote it") from error


def describe(folder: str | Path) -> dict[str, Any]:
    """The artefact's JSON: `keep`, `widths`, `info`, tensor shapes, checksum.

    Raises:
        ArtifactError: there is none, or it is of a format this version does not read.
    """
    file = Path(folder) / DESCRIPTION
    try:
        description = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"no readable description: {error}", where=str(file), allowed="a folder written by autoprune"
        ) from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ArtifactError("unknown format", where=str(file), allowed=f"format {FORMAT}")
    return description


def _write_model(folder: Path, model: nn.Module, graph: ChannelGraph, keep: Keep, info: Mapping[str, Any]) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in stored_tensors(model).items()}
    save_file(tensors, folder / WEIGHTS)
    stays = keep.units(graph)
    description = {
        "format": FORMAT,
        "weights_sha256": _file_sha256(folder / WEIGHTS),
        "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "keep": keep.to_dict(),
        "widths": keep.widths(graph),
        "decomposed": _full_ranks(model, graph),
        "cuts": _cut_dimensions(graph, stays),
        "attributes": sizes_after(graph, stays),
        "added": sorted(set(tensors) & _added_parameters(model, graph)),
        "inputs": [{**dataclasses.asdict(spec), "shape": list(spec.shape)} for spec in graph.inputs],
        "torch": torch.__version__,
        "info": info,
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1, allow_nan=False) + "\n")


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What an artefact stores: parameters and persistent buffers, shared ones once under their first name."""
    persistent = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    for name, tensor in persistent.items():
        first.setdefault(id(tensor), name)
    return {name: persistent[name] for name in first.values()}


def _full_ranks(model: nn.Module, graph: ChannelGraph) -> dict[str, int]:
    """The layers that are two, and their inner channels before any was cut."""
    basis = {f"{path}.basis.weight": path for path in decomposed(model)}
    full = {basis[slot.tensor]: len(slot.units) for slot in graph.slots if slot.tensor in basis and slot.dim == 0}
    return full | {path: len(model.get_parameter(name)) for name, path in basis.items() if path not in full}


def _cut_dimensions(graph: ChannelGraph, stays: np.ndarray) -> dict[str, dict[str, dict[str, Any]]]:
    """Tensor -> dimension -> dense size and the indices that stay, for every dimension that lost some."""
    cuts: dict[str, dict[str, dict[str, Any]]] = {}
    for slot in graph.slots:
        kept = kept_entries(slot.units, stays)
        if len(kept) != len(slot.units):
            cuts.setdefault(slot.tensor, {})[str(slot.dim)] = {"size": len(slot.units), "kept": kept.tolist()}
    return cuts


def _added_parameters(model: nn.Module, graph: ChannelGraph) -> set[str]:
    """Parameters the traced model did not have: biases that surgery added to hold folded constants."""
    return {name for name, _ in model.named_parameters()} - set(graph.tensors)


def _read_weights(folder: Path, description: Mapping[str, Any]) -> dict[str, Tensor]:
    file = folder / WEIGHTS
    if not file.is_file():
        raise ArtifactError("missing", where=str(file))
    if _file_sha256(file) != description["weights_sha256"]:
        raise ArtifactError("the weights are not those that were saved (checksum differs)", where=str(file))
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ArtifactError(f"not safetensors: {error}", where=str(file)) from error


def _cut_like(model: nn.Module, description: Mapping[str, Any], folder: Path) -> nn.Module:
    cuts: Mapping[str, Mapping[str, Any]] = description["cuts"]
    tensors = dict(named_tensors(model))
    for name, dims in cuts.items():
        for dim, cut in dims.items():
            shape = tuple(tensors[name].shape) if name in tensors else ()
            if int(dim) >= len(shape) or shape[int(dim)] != cut["size"]:
                raise ArtifactError(
                    f"tensor {name!r}: the factory's model has {shape or 'nothing'}",
                    where=str(folder),
                    allowed=f"{cut['size']} entries along dimension {dim}",
                )

    def shrink(name: str, tensor: Tensor) -> Tensor:
        for dim, cut in cuts.get(name, {}).items():
            tensor = tensor.index_select(int(dim), torch.tensor(cut["kept"]))
        return tensor

    pruned = copy_with(model.cpu(), shrink)
    sync_sizes(pruned, description["attributes"])
    return pruned


def _add_parameters(model: nn.Module, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    for name in names:
        path, _, leaf = name.rpartition(".")
        model.get_submodule(path).register_parameter(leaf, nn.Parameter(torch.zeros_like(tensors[name])))


def _fill_tensors(model: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    wanted = stored_tensors(model)
    for name in sorted(set(wanted) ^ set(tensors)):
        side = "the factory's model" if name in wanted else "the artefact"
        raise ArtifactError(f"tensor {name!r} is only in {side}", where=str(folder))
    for name, tensor in wanted.items():
        if tensor.shape != tensors[name].shape:
            raise ArtifactError(
                f"tensor {name!r}: the factory's model has {tuple(tensor.shape)}",
                where=str(folder),
                allowed=f"{tuple(tensors[name].shape)}",
            )
        with torch.no_grad():
            tensor.copy_(tensors[name])


def _file_sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()

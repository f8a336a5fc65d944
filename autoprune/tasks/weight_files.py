"""Weights from a file into a model: every tensor checked by name, shape and value before one is written."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from autoprune.errors import InputError, ModelError
from autoprune.files import writing, written_whole
from autoprune.tasks.checkpoint_files import Keys, read_tensors
from autoprune.tasks.user_code import data_folder

#: What batch norms count, and old checkpoints lack.
COUNTER = "num_batches_tracked"

#: What wrappers put into names, wherever they are; the network itself has no such part.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One set of tensors of a checkpoint under the names of the model, as far as they are its.

    Fields:
        path: the keys that lead to them.
        prefix: what their names begin with in the file.
        others: names in the file that do not begin so.
    """

    path: Keys
    prefix: str
    tensors: Mapping[str, Tensor]
    others: Sequence[str] = ()

    @property
    def key(self) -> str:
        """What `checkpoint_key` calls them."""
        return ".".join((*self.path, *([self.prefix.rstrip(".")] if self.prefix else [])))

    @property
    def place(self) -> str:
        """Where they are, in words; empty if the file is nothing but them."""
        under = f"under {'.'.join(self.path)!r}" if self.path else ""
        without = f"without the prefix {self.prefix!r}" if self.prefix else ""
        left = f", leaving out {len(self.others)} others such as {self.others[0]!r}" if self.others else ""
        return " ".join(part for part in (under, without) if part) + left


def find(path: str, where: str) -> Path:
    """The checkpoint file: as given, or inside the data folder.

    Raises:
        ModelError: there is no such file.
    """
    places = (Path(path).expanduser(), data_folder() / path)
    for candidate in places:
        if path and candidate.is_file():
            return candidate
    folder = next((candidate for candidate in places if path and candidate.is_dir()), None)
    if folder is not None:
        files = sorted(file.name for file in folder.iterdir() if file.is_file())[:5]
        inside = f"; it holds {', '.join(files)}" if files else ""
        raise ModelError(f"{path!r} is a folder{inside}", where=where, allowed="a file")
    allowed = f"a file here or in {data_folder()} ($AUTOPRUNE_DATA)"
    raise ModelError(f"no checkpoint {path!r}", where=where, allowed=allowed)


def digest_of(model: nn.Module) -> str:
    """Hexadecimal digest of the names, types, shapes and bits of all weights.

    Of the bits: a sum depends on how many threads add, and a network that was trained once was not found again.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def load_weights(model: nn.Module, file: Path, key: str | None = None) -> str:
    """Fill `model` from a safetensors or torch file; see `find_weights`.

    Returns:
        Where the tensors were in the file, in words; empty if it is nothing but them.
    """
    found, wanted = find_weights(model, file, key), model.state_dict()
    _check_names(found, wanted, str(file))
    for name, tensor in found.tensors.items():
        _check_tensor(name, tensor, wanted[name], str(file))
    model.load_state_dict({**wanted, **found.tensors})
    return found.place


def find_weights(model: nn.Module, file: Path, key: str | None) -> Weights:
    """The tensors of a file that are this model's.

    They may lie under any keys (`state_dict`, `model`, `ema`, ...), and their names may have a prefix, the one that
    makes them fit, such as `module.` of DataParallel, `_orig_mod.` of torch.compile, `model.` of Lightning.

    Args:
        key: where they are, if several sets of tensors fit: keys and prefix, joined by dots.

    Raises:
        ModelError: the file holds no tensors, several sets that fit and differ, or none of that key.
    """
    wanted = [name for name in model.state_dict() if not name.endswith(COUNTER)]
    found = [one for path, tensors in read_tensors(file).items() for one in _sets_of(path, tensors, wanted)]
    if key is not None:
        chosen = [one for one in found if key in (one.key, ".".join(one.path), one.prefix.rstrip("."))]
        if not chosen:
            allowed = (
                ", ".join(dict.fromkeys(one.key for one in found if one.key)) or "none: the file is one state dict"
            )
            raise ModelError(f"nothing under checkpoint_key {key!r}", where=str(file), allowed=allowed)
        found = chosen
    return _only_one(sorted(found, key=lambda one: -_count(one, wanted)), wanted, str(file))


def _sets_of(path: Keys, tensors: Mapping[str, Tensor], wanted: Sequence[str]) -> list[Weights]:
    """A mapping of tensors by each of the prefixes under which most names of the model stand in it."""
    own = {part for name in wanted for part in name.split(".")}  # a network may have a part that is called so itself
    wrappers = [name for name in _WRAPPERS if name not in own]
    plain = {_unwrapped(name, wrappers): tensor for name, tensor in tensors.items()}
    prefixes = Counter(given[: len(given) - len(name)] for name, given in _endings(wanted, plain))
    most = max(prefixes.values(), default=0)
    found = []
    for prefix in [prefix for prefix, count in prefixes.items() if count == most] or [""]:
        inside = {name.removeprefix(prefix): tensor for name, tensor in plain.items() if name.startswith(prefix)}
        others = [name for name in plain if not name.startswith(prefix)]
        found.append(
            Weights(path=path, prefix=_written_prefix(prefix, tensors, wrappers), tensors=inside, others=others)
        )
    return found


def _endings(wanted: Sequence[str], given: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """(name of the model, name in the file that is it or ends with it after a dot)."""
    names = set(wanted)
    return [
        (name, whole)
        for whole in given
        for name in [whole, *(whole[place + 1 :] for place, letter in enumerate(whole) if letter == ".")]
        if name in names
    ]


def _unwrapped(name: str, wrappers: Sequence[str]) -> str:
    return ".".join(part for part in name.split(".") if part not in wrappers)


def _written_prefix(prefix: str, tensors: Mapping[str, Tensor], wrappers: Sequence[str]) -> str:
    """The prefix as it stands in the file, with what wrappers put before it."""
    first = next((name for name in tensors if _unwrapped(name, wrappers).startswith(prefix)), "")
    parts, kept = first.split("."), prefix.count(".")
    while parts and (kept or parts[0] in wrappers):
        kept -= parts[0] not in wrappers
        parts = parts[1:]
    return first[: len(first) - len(".".join(parts))]


def _count(found: Weights, wanted: Sequence[str]) -> int:
    return sum(name in found.tensors for name in wanted)


def _only_one(found: Sequence[Weights], wanted: Sequence[str], where: str) -> Weights:
    """The set that fits best; raises `ModelError` if others fit as well and hold other numbers."""
    best = [one for one in found if _count(one, wanted) == _count(found[0], wanted)]
    if len(best) > 1 and _count(best[0], wanted) == len(wanted):
        rivals = [one for one in best[1:] if not _equal(one, best[0], wanted)]
        if rivals:
            keys = [one.key for one in (best[0], *rivals)]
            what = f"tensors under {' and under '.join(map(repr, keys[:4]))} fit the model, and differ"
            raise ModelError(what, where=where, allowed=f"checkpoint_key: {', or '.join(keys[:4])}")
    return best[0]


def _equal(one: Weights, other: Weights, wanted: Sequence[str]) -> bool:
    return all(torch.equal(one.tensors[name], other.tensors[name]) for name in wanted)


def _check_names(found: Weights, wanted: Mapping[str, Tensor], where: str) -> None:
    missing = [name for name in wanted if name not in found.tensors and not name.endswith(COUNTER)]
    unknown = [name for name in found.tensors if name not in wanted]
    needed = [name for name in wanted if not name.endswith(COUNTER)]
    if needed and len(missing) == len(needed):
        what = f"of another network: it has {_some(unknown)}, the model {_some(missing)}"
        raise ModelError(what, where=where, allowed="a checkpoint of this model")
    if missing:
        near = f"; it has {_some(unknown)} instead" if unknown else ""
        what = f"no tensor {missing[0]!r} ({len(missing)} of {len(wanted)} are missing{near})"
        raise ModelError(what, where=where, allowed="a checkpoint of this model")
    if unknown:
        what = f"tensor {unknown[0]!r} is not in the model ({len(unknown)} such)"
        raise ModelError(what, where=where, allowed="a checkpoint of this model")


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:2])) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def save_weights(model: nn.Module, file: Path) -> None:
    """Write the model's tensors as safetensors, whole or not at all."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with writing(file, "a writable folder by $AUTOPRUNE_DATA"), written_whole(file) as beside:
        save_file(state, beside)


def check_writable(folder: Path, where: str) -> None:
    """Make `folder` if it is not there; raise `InputError` if nothing can be written into it."""
    probe = folder / f".probe.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        message = f"cannot write to {str(folder)!r}: {error.strerror}"
        raise InputError(message, where=where, allowed="a writable folder by $AUTOPRUNE_DATA") from error


def _check_tensor(name: str, tensor: Tensor, wanted: Tensor, where: str) -> None:
    if tensor.shape != wanted.shape:
        found, needed = tuple(tensor.shape), tuple(wanted.shape)
        outputs = found[1:] == needed[1:] and len(found) > 0
        why = f": {found[0]} outputs, such as classes, in place of {needed[0]}" if outputs else ""
        what = f"tensor {name!r} is {found}, the model needs {needed}{why}"
        raise ModelError(what, where=where, allowed="a checkpoint of this model, or a model of the checkpoint's sizes")
    if wanted.is_floating_point() and not tensor.is_floating_point():
        raise ModelError(f"tensor {name!r} is {tensor.dtype}", where=where, allowed=str(wanted.dtype))
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise ModelError(f"tensor {name!r} holds NaN or infinity", where=where, allowed="finite weights")

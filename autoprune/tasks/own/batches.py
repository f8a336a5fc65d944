"""What of a user's batch goes into the model, and what the loss and the metric compare its outputs with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoprune.errors import DataError, InputError
from autoprune.training.protocols import Batch

ALLOWED = "(inputs, targets), or a mapping and `inputs`, the keys of what the model takes"


@dataclass(frozen=True, kw_only=True)
class BatchParts:
    """The two parts of a batch.

    Fields:
        inputs: of a batch that is a mapping, the keys whose values the model takes, in this order; () = it is a tuple.
        targets: the keys that are compared with outputs; () = all others.
    """

    inputs: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()

    @classmethod
    def of(cls, inputs: object, targets: object, where: str) -> BatchParts:
        """Read keys: none, one, or a list of them."""
        return cls(inputs=_read_keys(inputs, f"{where}.inputs"), targets=_read_keys(targets, f"{where}.targets"))

    def inputs_of(self, batch: Batch) -> tuple[Any, ...]:
        """The positional arguments of a forward pass."""
        if isinstance(batch, Mapping):
            return tuple(self._value(batch, key) for key in self._keys_of_inputs(batch))
        inputs = self._tuple(batch)[0]
        return inputs if isinstance(inputs, tuple) else (inputs,)

    def targets_of(self, batch: Batch) -> Any:
        """What outputs are compared with; several keys, or several parts behind the inputs, stay together."""
        if isinstance(batch, Mapping):
            keys = self.targets or tuple(key for key in batch if key not in self._keys_of_inputs(batch))
            found = {key: self._value(batch, key) for key in keys}
            return found[keys[0]] if len(keys) == 1 else found
        _, *rest = self._tuple(batch)
        return rest[0] if len(rest) == 1 else tuple(rest)

    def _keys_of_inputs(self, batch: Mapping[str, Any]) -> tuple[str, ...]:
        if not self.inputs:
            keys = ", ".join(map(str, batch))
            raise DataError(f"a batch is a mapping with the keys {keys}", where="inputs", allowed=ALLOWED)
        return self.inputs

    @staticmethod
    def _value(batch: Mapping[str, Any], key: str) -> Any:
        if key not in batch:
            raise DataError(f"a batch has no {key!r}", where="inputs, targets", allowed=", ".join(map(str, batch)))
        return batch[key]

    @staticmethod
    def _tuple(batch: Batch) -> tuple[Any, ...]:
        if not isinstance(batch, tuple) or len(batch) < 2:
            found = f"a tuple of {len(batch)}" if isinstance(batch, tuple) else f"a {type(batch).__name__}"
            raise DataError(f"a batch is {found}", where="the train data", allowed=ALLOWED)
        return batch


def _read_keys(given: object, where: str) -> tuple[str, ...]:
    keys = () if given is None else (given,) if isinstance(given, str) else given
    if not isinstance(keys, (tuple, list)) or not all(isinstance(key, str) for key in keys):
        raise InputError(f"{given!r} names no keys", where=where, allowed="a key, or a list of keys")
    return tuple(keys)

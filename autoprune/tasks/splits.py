"""Split expressions such as `train[:-5000]`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from autoprune.errors import DataError, InputError, check_name
from autoprune.tasks.base import LabelledImages
from autoprune.tasks.data_spec import Source

_EXPRESSION = re.compile(r"(\w+)(?:\[(-?\d*):(-?\d*)\])?")

Range = tuple[str, int, int]


def split_expressions(splits: Mapping[str, str], source: Source, where: str) -> dict[str, str]:
    """The expressions that are given, or are meant where nothing is said.

    Without `validation` it is the part of that name, else the last tenth of the training split; without `test` the
    part of that name, if there is one.

    Raises:
        InputError: a name is unknown, or nothing says what is trained on and there is no part `train`.
    """
    for name in splits:
        check_name(name, ("train", "validation", "test"), kind="split", where=f"{where}.splits")
    meant = {name: name for name in ("train", "test") if name in source.parts}
    given = {**meant, **splits}
    if "train" not in given:
        part = next(iter(source.parts))
        allowed = f"for instance splits: {{train: '{part}[:-100]', validation: '{part}[-100:]'}}"
        raise InputError(f"there is no part 'train' but {', '.join(source.parts)}", where=where, allowed=allowed)
    if "validation" in given:
        return given
    own = next((part for part in ("validation", "val") if part in source.parts), None)
    if own is not None:
        return {**given, "validation": own}
    part, low, high = _parse_expression(given["train"], source, f"{where}.splits.train")
    cut = high - max(1, (high - low) // 10)
    return {**given, "train": f"{part}[{low}:{cut}]", "validation": f"{part}[{cut}:{high}]"}


def _parse_expression(text: str, source: Source, where: str) -> Range:
    """The part and the images [low, high) that an expression such as `train[:-5000]` means."""
    match = _EXPRESSION.fullmatch(text.replace(" ", ""))
    if match is None:
        raise InputError(f"{text!r} is no split", where=where, allowed="PART, PART[a:b], PART[:-n]")
    part, low, high = match.groups()
    check_name(part, source.parts, kind="part of the data", where=where)
    length = source.parts[part].length
    start, stop, _ = slice(int(low) if low else None, int(high) if high else None).indices(length)
    if start >= stop:
        raise InputError(f"{text!r} is empty", where=where, allowed=f"{part!r} has {length} images")
    return part, start, stop


def split_ranges(expressions: Mapping[str, str], source: Source, where: str) -> dict[str, Range]:
    """Split name -> the images that its expression means; raises `InputError` if two splits share some."""
    ranges = {name: _parse_expression(text, source, f"{where}.{name}") for name, text in expressions.items()}
    ordered = sorted(ranges.items(), key=lambda item: item[1])
    for (first, a), (second, b) in itertools.pairwise(ordered):
        if a[0] == b[0] and b[1] < a[2]:
            both = f"{first} ({expressions[first]}) and {second} ({expressions[second]})"
            raise InputError(f"{both} share {min(a[2], b[2]) - b[1]} images", where=where, allowed="disjoint splits")
    return ranges


def check_labels(splits: Mapping[str, LabelledImages | None], names: Sequence[str], where: str) -> None:
    """Raise `DataError` if validation or test hold classes that the training split does not.

    Args:
        names: of the classes, by number; empty = they have none.
    """
    train = splits["train"]
    assert train is not None, "there is always something to train on"
    trained = _classes_in(train.labels)
    for name in ("validation", "test"):
        split = splits[name]
        strange = sorted(_classes_in(split.labels) - trained) if split is not None else []
        if strange:
            shown = [names[number] if names else number for number in strange[:5]]
            what = f"{name} holds classes {shown} that train does not"
            raise DataError(what, where=f"{where}.splits", allowed="shuffled data, or splits with the same classes")


def untested_classes(split: LabelledImages, classes: int) -> list[int]:
    """The classes that a split has no image of."""
    return sorted(set(range(classes)) - _classes_in(split.labels))


def _classes_in(labels: Tensor) -> set[int]:
    """The classes that some image has."""
    found = labels.unique() if labels.dim() == 1 else labels.any(0).nonzero().flatten()
    return set(found.tolist())


def check_disjoint(files: Mapping[str, Iterable[str]], where: str) -> None:
    """See that no two splits have a file in common: parts may be lists of the same files, VOC's train and trainval.

    Args:
        files: name of a split -> its images.

    Raises:
        InputError: two splits share a file.
    """
    seen: dict[str, str] = {}
    for name, own in files.items():
        for file in own:
            if seen.setdefault(file, name) != name:
                both = f"{seen[file]} and {name} share {Path(file).name}"
                raise InputError(both, where=where, allowed="disjoint splits")

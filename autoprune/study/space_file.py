"""Space files: YAML to a tree of values and parameters; the tree and suggested parameters to a recipe's plain data.

A space has the shape of `Recipe.to_dict()`. Anywhere in it may stand a parameter instead of a value:

    {float: [0.1, 0.8]}                      {float: [0.001, 0.1], log: true}
    {int: [1, 9], step: 2}                   {choice: [mean, max, none]}
    {choice: {l1: {}, bn_scale: {penalty: {float: [1e-5, 1e-3], log: true}}}}
    {each: stage, float: [0, 1]}             only in allocation.ratios; `each: group` likewise

The last but one picks a branch, `{name: bn_scale, penalty: ...}`. A parameter's name is its dotted path: what stands
outside a branch is one parameter for all branches (`target.flops`), so that the sampler learns about it from every
trial; what stands inside belongs to that branch alone (`method.bn_scale.penalty`).

A method declares where each of its hyper-parameters is worth searching (`autoprune methods` prints it). Two words stand
for that, `range` for one hyper-parameter and `ranges` for all of a method:

    {choice: {l1: {}, bn_scale: {penalty: range, share: 0.3}, greg1: ranges}}

They are replaced by the parameters they stand for as the file is read; what is written down has only those.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from autoprune.errors import InputError, brief_repr, check_name
from autoprune.schema import expect_mapping
from autoprune.study.config import StudyConfig
from autoprune.study.parameters import CheckMethod, FindMethod
from autoprune.study.read_space import is_parameter
from autoprune.study.yaml_text import parse_yaml

SPACES = "autoprune.search_spaces"


def names() -> list[str]:
    """The ready spaces, found by name."""
    files = resources.files(SPACES).iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".yaml"))


def load_space(
    name_or_path: str | Path | Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    task: Mapping[str, Any] | None = None,
    check_method: CheckMethod | None = None,
    find_method: FindMethod | None = None,
) -> StudyConfig:
    """Read a space file, what it extends, and the overrides.

    Args:
        name_or_path: a ready space, a file, or what a file holds.
        overrides: `space.target.flops=0.5`: a dotted path and a value in YAML.
        task: in place of the file's own.
        check_method, find_method: see `Space.read`.

    Raises:
        InputError: naming the file, the path inside it and what is allowed.
    """
    where, data = _load_merged(name_or_path, Path(), ())
    data = {**{section: {} for section in _optional_sections()}, **data} | ({} if task is None else {"task": task})
    for override in overrides:
        _apply_override(data, override)
    where = f"{where} with --set {' '.join(overrides)}" if overrides else where
    return StudyConfig.from_plain(data, where, check_method=check_method, find_method=find_method)


def _optional_sections() -> list[str]:
    """What a space file may leave out as a whole; overrides may name parts of it all the same."""
    return [f.name for f in dataclasses.fields(StudyConfig) if f.default_factory is not dataclasses.MISSING]


def _load_merged(
    name_or_path: str | Path | Mapping[str, Any], base: Path, chain: tuple[str, ...]
) -> tuple[str, dict[str, Any]]:
    """The file's label and its data merged over what it extends; `chain` are the files that led here."""
    if isinstance(name_or_path, Mapping):
        return _merge_extended("space", name_or_path, base, chain)
    where, text, folder = _find_text(str(name_or_path), base, chain[-1] if chain else "")
    if where in chain:
        raise InputError(f"extends itself: {' -> '.join((*chain, where))}", where=where)
    parsed = parse_yaml(text, where)
    if not isinstance(parsed, Mapping):
        keys = ", ".join(("extends", *StudyConfig.__dataclass_fields__))
        raise InputError("this is no space file", where=where, allowed=f"a mapping with the keys {keys}")
    return _merge_extended(where, parsed, folder, chain)


def _merge_extended(
    where: str, parsed: Mapping[str, Any], folder: Path, chain: tuple[str, ...]
) -> tuple[str, dict[str, Any]]:
    data = dict(expect_mapping(parsed, where))
    if "extends" not in data:
        return where, data
    parent = data.pop("extends")
    if not isinstance(parent, str):
        raise InputError(f"expected a name or a path, found {parent!r}", where=f"{where}: extends")
    return where, merge(_load_merged(parent, folder, (*chain, where))[1], data)


def _find_text(name: str, base: Path, asked_by: str) -> tuple[str, str, Path]:
    """Label, text and folder of a space file; a path is relative to the file that names it."""
    if name in names():
        file = resources.files(SPACES) / f"{name}.yaml"
        return f"{name}.yaml", file.read_text(encoding="utf-8"), base
    path = base / Path(name).expanduser()
    if path.suffix not in {".yaml", ".yml"} and not path.is_file():
        check_name(name, names(), kind="search space", where=f"{asked_by}: extends" if asked_by else "")
    try:
        return str(path), path.read_text(encoding="utf-8"), path.parent
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot read it: {reason}", where=str(path), allowed=f"a YAML file, or one of {', '.join(names())}"
        ) from None


def merge(base: Any, top: Any) -> dict[str, Any]:
    """`top` over `base`, mapping by mapping; a parameter counts as one value and is replaced as a whole."""
    result = dict(base)
    for key, item in top.items():
        old = result.get(key)
        nested = isinstance(old, Mapping) and isinstance(item, Mapping)
        result[key] = merge(old, item) if nested and not (is_parameter(old) or is_parameter(item)) else item
    return result


def _apply_override(data: dict[str, Any], override: str) -> None:
    path, value = read_override(override, "space.target.flops=0.5")
    parent, key = _holder_of(data, path, f"--set {path}")
    parent[key] = value


def read_override(override: str, example: str) -> tuple[str, Any]:
    """The dotted path and the value of `key=value`; raises `InputError` for anything else, an empty value too."""
    path, equals, text = override.partition("=")
    if not equals or not path:
        what = f"expected key=value, found {brief_repr(override)}"
        raise InputError(what, where="--set", allowed=f"for instance {example}")
    if not text.strip():
        raise InputError("no value", where=f"--set {path}", allowed=f"{path}=VALUE, or {path}=null for none")
    return path, parse_yaml(text, f"--set {path}")


def _holder_of(data: dict[str, Any], path: str, where: str) -> tuple[dict[str, Any], str]:
    """The mapping that holds the last key of a dotted path; keys may have dots themselves (group ids)."""
    parts, here = path.split("."), data
    while len(parts) > 1:
        for size in range(len(parts), 0, -1):
            key, rest = ".".join(parts[:size]), parts[size:]
            if key in here:
                break
        else:
            raise InputError(f"there is no {parts[0]!r}", where=where, allowed=", ".join(here) or "nothing is set here")
        if not rest:
            return here, key
        if not isinstance(here[key], dict):
            raise InputError(f"{key!r} is {here[key]!r} and holds nothing", where=where)
        here[key] = here = dict(here[key])
        parts = rest
    return here, parts[0]

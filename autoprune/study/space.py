"""Space: the tree of values and parameters that a search may vary."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from autoprune.errors import InputError, check_name
from autoprune.recipe import MethodChoice, Recipe
from autoprune.schema import expect_mapping, to_plain
from autoprune.study.declared_ranges import spell_out_ranges
from autoprune.study.parameters import (
    RATIOS,
    Branch,
    CheckMethod,
    Choice,
    Each,
    FindMethod,
    Fixed,
    Float,
    Int,
    Nested,
    Node,
    Suggest,
)
from autoprune.study.read_space import read_node


@dataclass(frozen=True)
class Space:
    """What a search may vary; immutable."""

    root: Nested

    @classmethod
    def read(
        cls,
        data: object,
        where: str = "space",
        *,
        check_method: CheckMethod | None = None,
        find_method: FindMethod | None = None,
    ) -> Space:
        """Read the `space:` part of a file and build the recipes at both ends of every branch.

        Args:
            data: plain data, see the head of this module.
            where: what errors call the space, for instance `demo.yaml: space`.
            check_method: raises `InputError` for a method that does not exist or does not take such parameters.
            find_method: where `range` and `ranges` are looked up; without it they may not stand in the data.

        Raises:
            InputError: naming the path inside the space and what is allowed there.
        """
        mapping = dict(expect_mapping(data, where))
        if "method" not in mapping:
            raise InputError("missing key 'method'", where=where, allowed=", ".join(Recipe.__dataclass_fields__))
        mapping["method"] = spell_out_ranges(mapping["method"], f"{where}.method", find_method)
        space = cls(Nested({key: read_node(item, f"{where}.{key}", (key,)) for key, item in mapping.items()}))
        for recipe in space.corners(where):
            _check_method(recipe.method, where, check_method)
        return space

    def walk(self, suggest: Suggest) -> dict[str, Any]:
        """Plain data of one recipe; parameters are asked for in the order of the file, by their dotted names."""
        plain: dict[str, Any] = _walk_node(self.root, "", suggest)
        return plain

    def bind(self, groups: Sequence[tuple[str, int]]) -> Space:
        """The space for one model: `each: group` and `each: stage` become one parameter per group or stage.

        Args:
            groups: (id, stage) of the prunable groups.

        Raises:
            InputError: a key of `allocation.ratios` is no group, stage or pattern of this model.
        """
        return Space(_bind_nested(self.root, groups, ()))

    def with_target(self, ratio: str, kind: Float) -> Space:
        """The space with another range for a target, such as `flops`, that has one."""
        target = self.root.items["target"]
        assert isinstance(target, Nested), "a target with a range is no parameter itself"
        return Space(Nested({**self.root.items, "target": Nested({**target.items, ratio: kind})}))

    def without_methods(self, names: Collection[str]) -> Space:
        """The space without some of the methods that its `choice` of methods offers."""
        method = self.root.items["method"]
        if not isinstance(method, Branch) or not names:
            return self
        left = Branch({name: branch for name, branch in method.options.items() if name not in names})
        return Space(Nested({**self.root.items, "method": left}))

    def corners(self, where: str = "space") -> list[Recipe]:
        """Recipes at the low and at the high end of all numbers that together contain every branch and every choice.

        Raises:
            InputError: one of them is no recipe.
        """
        plain = [corner for high in (False, True) for corner in _corner_values(self.root, high=high)]
        return [Recipe.from_dict(corner, where) for corner in plain]

    def methods(self) -> tuple[str, ...]:
        """The names of the methods, in the order of the file."""
        return tuple(dict.fromkeys(corner["method"]["name"] for corner in _corner_values(self.root, high=False)))

    def parameters(self) -> dict[str, Float | Int | Choice | Branch]:
        """Every parameter by its dotted name, branches included, in the order in which `walk` may ask for them."""
        return dict(_named_parameters(self.root, ""))

    def to_plain(self) -> dict[str, Any]:
        """What a space file holds; `Space.read(space.to_plain()) == space`."""
        plain: dict[str, Any] = _to_plain(self.root)
        return plain


def _check_method(choice: MethodChoice, where: str, check: CheckMethod | None) -> None:
    if check is None:
        return
    try:
        check(choice)
    except InputError as error:
        inside = error.where if error.where.startswith("method") else f"method.{choice.name}"
        raise type(error)(error.what, where=f"{where}.{inside}", allowed=error.allowed) from None


def _join_names(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _walk_node(node: Node, name: str, suggest: Suggest) -> Any:
    match node:
        case Fixed(value):
            return value
        case Float(low, high, log):
            return suggest.suggest_float(name, low, high, log=log)
        case Int(low, high, log, step):
            return suggest.suggest_int(name, low, high, step=step, log=log)
        case Choice(options):
            return suggest.suggest_categorical(name, options)
        case Branch(options):
            picked = str(suggest.suggest_categorical(name, tuple(options)))
            return {"name": picked, **_walk_node(options[picked], _join_names(name, picked), suggest)}
        case Nested(items):
            return {key: _walk_node(item, _join_names(name, key), suggest) for key, item in items.items()}
        case Each():
            raise InputError("`each` needs a model", where=name, allowed="a space bound to the model's groups")


def _corner_values(node: Node, *, high: bool) -> list[Any]:
    match node:
        case Fixed(value):
            return [value]
        case Float() | Int():
            return [node.high if high else node.low]
        case Choice(options):
            return list(options)
        case Branch(options):
            return [{"name": name, **sub} for name, item in options.items() for sub in _corner_values(item, high=high)]
        case Each(item=item):
            return [{"*": value} for value in _corner_values(item, high=high)]
        case Nested(items):
            columns = {key: _corner_values(item, high=high) for key, item in items.items()}
            rows = max((len(column) for column in columns.values()), default=1)
            return [{key: column[min(i, len(column) - 1)] for key, column in columns.items()} for i in range(rows)]


def _named_parameters(node: Node, name: str) -> Iterator[tuple[str, Float | Int | Choice | Branch]]:
    match node:
        case Float() | Int() | Choice():
            yield name, node
        case Branch(options):
            yield name, node
            for key, branch in options.items():
                yield from _named_parameters(branch, _join_names(name, key))
        case Nested(items):
            for key, item in items.items():
                yield from _named_parameters(item, _join_names(name, key))


def _to_plain(node: Node) -> Any:
    plain: dict[str, Any]
    match node:
        case Fixed(value):
            return to_plain(value)
        case Float(low, high, log):
            plain = {"float": [low, high], "log": log}
        case Int(low, high, log, step):
            plain = {"int": [low, high], "log": log, "step": step}
        case Choice(options):
            plain = {"choice": list(options)}
        case Branch(options):
            plain = {"choice": {name: _to_plain(item) for name, item in options.items()}}
        case Each(scope, item):
            plain = {"each": scope, **_to_plain(item)}
        case Nested(items):
            plain = {key: _to_plain(node) for key, node in items.items()}
    return plain


def _bind_node(node: Node, groups: Sequence[tuple[str, int]], path: tuple[str, ...]) -> Node:
    match node:
        case Each(scope, item):
            keys = [f"stage{n}" for n in sorted({stage for _, stage in groups})]
            return Nested(dict.fromkeys([group for group, _ in groups] if scope == "group" else keys, item))
        case Branch(options):
            return Branch({name: _bind_nested(branch, groups, path) for name, branch in options.items()})
        case Nested():
            return _bind_nested(node, groups, path)
        case _:
            return node


def _bind_nested(node: Nested, groups: Sequence[tuple[str, int]], path: tuple[str, ...]) -> Nested:
    if path == RATIOS:
        for key in node.items:
            _check_ratio_key(key, groups)
    return Nested({key: _bind_node(item, groups, (*path, key)) for key, item in node.items.items()})


def _check_ratio_key(key: str, groups: Sequence[tuple[str, int]]) -> None:
    allowed = [group for group, _ in groups] + sorted({f"stage{stage}" for _, stage in groups})
    if not any(fnmatch.fnmatchcase(name, key) for name in allowed):
        check_name(key, allowed, kind="group, stage or pattern", where="space.allocation.ratios")

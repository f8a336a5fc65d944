"""`range` and `ranges` stand for what methods declare."""

import dataclasses
import typing
from dataclasses import dataclass, field

import pytest
from spaces import FILE, Scripted, read_space

from autoprune import methods
from autoprune.errors import InputError
from autoprune.schema import choices, within
from autoprune.study.config import StudyConfig
from autoprune.study.parameters import Choice, Float, Int
from autoprune.study.space_file import load_space


@dataclass(frozen=True, kw_only=True)
class Declaring:
    """A method with hyper-parameters of every kind."""

    depth: int = field(default=7, metadata=within(3, 11))
    images: int = field(default=13, metadata=within(1, 10**9, log=True, search=(11, 1300)))
    lr: float = field(default=0.1, metadata=within(1e-3, 1, log=True))
    scope: str = field(default="coupled", metadata=choices("coupled", "faithful"))
    above: float = field(default=0.5, metadata=within(0, 1, open_low=True))
    some: float = field(default=0.5, metadata=within(0, 1, open_low=True, search=(0.1, 1)))
    low: float = field(default=0.5, metadata=within(0, 1, log=True))
    endless: float = field(default=1.0, metadata=within(0, float("inf")))
    label: str = "text"


def declaring(name, where):
    return {"mine": Declaring}.get(name) or methods.find(name, where)


DECLARED = {
    "depth": Int(3, 11),
    "images": Int(11, 1300, log=True),
    "lr": Float(1e-3, 1.0, log=True),
    "scope": Choice(("coupled", "faithful")),
    "some": Float(0.1, 1.0),
}


@pytest.mark.parametrize("key", DECLARED)
def test_range_stands_for_what_the_method_declares(key):
    branch = read_space(f"method: {{choice: {{l1: {{}}, mine: {{{key}: range, label: a}}}}}}", find_method=declaring)
    alone = read_space(f"method: {{name: mine, {key}: range, label: a}}", find_method=declaring)

    assert branch.parameters()[f"method.mine.{key}"] == DECLARED[key]
    assert alone.parameters() == {f"method.{key}": DECLARED[key]}
    assert alone.walk(Scripted())["method"]["label"] == "a"


def test_ranges_stands_for_all_hyper_parameters_that_declare_one():
    parameters = read_space("method: {choice: {l1: {}, mine: ranges}}", find_method=declaring).parameters()

    assert list(parameters) == ["method", *(f"method.mine.{key}" for key in DECLARED)]
    assert [parameters[f"method.mine.{key}"] for key in DECLARED] == list(DECLARED.values())


@pytest.mark.parametrize("name", [name for name, kind in methods.METHODS.items() if dataclasses.fields(kind)])
def test_every_method_declares_a_valid_range_for_every_hyper_parameter(name):
    options = {"check_method": methods.build, "find_method": methods.find}
    space = read_space(f"method: {{choice: {{{name}: ranges}}}}", **options)  # builds the method at both ends
    kinds = typing.get_type_hints(methods.METHODS[name])
    fields = {f.name: f for f in dataclasses.fields(methods.METHODS[name]) if kinds[f.name] in (int, float, str)}

    assert {key.removeprefix(f"method.{name}.") for key in space.parameters()} == {"method", *fields}
    for key, item in fields.items():
        found = space.parameters()[f"method.{name}.{key}"]
        if isinstance(found, Choice):
            assert item.default in found.options
            assert not {"range", "ranges"} & set(found.options)  # else the words would have two meanings
        else:
            assert found.low <= item.default <= found.high
            assert found.log == item.metadata["log"]


def test_what_is_written_down_needs_no_method_to_be_read_again(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(FILE)
    words = ["space.method.choice.greg1=ranges", "space.method.choice.bn_scale.penalty=range"]
    config = load_space(file, overrides=words, check_method=methods.build, find_method=methods.find)

    assert "range" not in config.to_yaml()
    assert StudyConfig.from_yaml(config.to_yaml()) == config
    assert config.space.parameters()["method.greg1.shrink"].log


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("{choice: {mine: {dept: range}}}", "choice.mine", "unknown hyper-parameter of 'mine' 'dept' (did you"),
        ("{name: mine, dept: range}", "", "unknown hyper-parameter of 'mine' 'dept' (did you mean 'depth'?)"),
        ("{choice: {mines: ranges}}", "choice.mines", "unknown method 'mines'"),
        ("{choice: {l1: ranges}}", "choice.l1", "method 'l1' declares no ranges; allowed: {}"),
        ("{choice: {l1: {p: range}}}", "choice.l1.p", "method 'l1' has no hyper-parameters; allowed: {}"),
        ("{choice: {mine: {label: range}}}", "choice.mine.label", "'label' declares no range; allowed: depth, images,"),
        ("{choice: {mine: {above: range}}}", "choice.mine.above", "'above' declares no range"),
        ("{choice: {mine: {low: range}}}", "choice.mine.low", "'low' declares no range"),
        ("{choice: {mine: {endless: range}}}", "choice.mine.endless", "'endless' declares no range"),
        ("{choice: {mine: range}}", "choice.mine", "found 'range'; allowed: `ranges`, or a mapping"),
        ("{name: {choice: [l1, l2]}, p: range}", "", "the method's name is not a plain name"),
    ],
)
def test_ranges_that_cannot_be_looked_up(text, where, what):
    with pytest.raises(InputError) as caught:
        read_space(f"method: {text}", find_method=declaring)

    assert str(caught.value).startswith(f"my.yaml: space.method{'.' if where else ''}{where}: ")
    assert what in str(caught.value)


def test_ranges_need_to_know_the_methods():
    with pytest.raises(InputError, match="no methods are known here"):
        read_space("method: {choice: {greg1: ranges}}")

"""The benchmark of how long choosing takes: its arithmetic, its table, and that methods choose by weights alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from autoprune.analysis.benchmarks import selection_speed
from autoprune.analysis.benchmarks.selection_speed import LIMITS, NAMES, YARDSTICK, Row, Subject, measure, table
from autoprune.engine.allocation.allocate import TOLERANCE
from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.methods import METHODS, Context, Method, Selection
from autoprune.methods.base.method import Scores
from autoprune.methods.magnitude import L1
from autoprune.recipe import Allocation, Target


def row(method: str = "epruner", net: str = "vgg16_bn", *seconds: float) -> Row:
    """Three rounds beside an `l1` of 0.1, 0.2 and 0.7 s."""
    return Row(net=net, method=method, seconds=seconds or (5.0, 9.5, 7.0), yardstick=(0.1, 0.2, 0.7))


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject.of("resnet20", None)


def test_the_ratio_is_the_median_of_ratios_within_a_round() -> None:
    assert row().ratio == pytest.approx(9.5 / 0.2)


@pytest.mark.parametrize(("net", "method", "slowest", "met"), [
    ("vgg16_bn", "epruner", 10.0, True),
    ("vgg16_bn", "epruner", 10.1, False),
    ("resnet56", "epruner", 5.0, True),
    ("resnet56", "epruner", 5.1, False),
    ("resnet56", "l1", 77.0, None),
])  # fmt: skip
def test_a_limit_holds_for_the_slowest_round(net: str, method: str, slowest: float, met: bool | None) -> None:
    assert row(method, net, 0.1, slowest, 0.2).met is met


def test_the_table_has_a_line_per_method_and_network() -> None:
    rows = [row("l1", "vgg16_bn", 0.1, 0.2, 0.7), row("epruner", "resnet56"), row()]
    text = table(rows, "a machine")

    assert "a machine" in text
    assert text.splitlines()[-3:] == [
        "| vgg16_bn | l1 | 0.200 | 0.100 | 0.700 | 1.0 |  |  |",
        "| resnet56 | epruner | 7.000 | 5.000 | 9.500 | 47.5 | 5 s | **not met** |",
        "| vgg16_bn | epruner | 7.000 | 5.000 | 9.500 | 47.5 | 10 s | met |",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_method_meets_the_target_without_images(subject: Subject, name: str) -> None:
    keep, dense = subject.choose(METHODS[name](), 1), cost(subject.graph, Keep.all())

    assert cost(subject.graph, keep).ratios(dense)["flops"] == pytest.approx(0.5, abs=TOLERANCE)


class Watcher(L1):
    """Notes for which seeds it scored and that each time the context was another one."""

    contexts: list[Context] = []  # noqa: RUF012 - shared, as the method is frozen

    def score(self, context: Context) -> Scores:
        self.contexts.append(context)
        return super().score(context)


def test_rounds_go_in_turns_and_the_first_is_not_counted(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def choose(self: Subject, method: Method, seed: int) -> None:
        order.append(f"{method.name} {seed}")

    monkeypatch.setattr(Subject, "choose", choose)
    rows = measure(subject, (YARDSTICK, "epruner"), 2)

    assert order == ["l1 0", "epruner 0", "l1 1", "epruner 1", "l1 2", "epruner 2"]
    assert [len(found.seconds) for found in rows] == [2, 2]
    assert rows[1].yardstick == rows[0].seconds


def test_every_choice_has_a_context_of_its_own(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watcher, "contexts", [])
    for seed in (3, 7):
        subject.choose(Watcher(), seed)

    assert [context.seed for context in Watcher.contexts] == [3, 7]
    assert Watcher.contexts[0] is not Watcher.contexts[1]


class Asks(L1):
    """A method that wants to see an image."""

    def select(self, context: Context, scores: Scores, target: Target, allocation: Allocation) -> Selection:
        next(context.batches(1))
        return Selection(Keep.all())


def test_a_method_that_asks_for_images_fails(subject: Subject) -> None:
    with pytest.raises(AssertionError, match="asked for images"):
        subject.choose(Asks(), 0)


def test_pretrained_weights_are_loaded_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection_speed, "WEIGHTS", {"resnet20": "my.safetensors"})
    drawn = Subject.of("resnet20", None)
    weights: dict[str, Tensor] = {name: torch.full_like(value, 2) for name, value in drawn.model.state_dict().items()}
    save_file(weights, tmp_path / "my.safetensors")
    loaded = Subject.of("resnet20", tmp_path)

    assert "resnet20 (pretrained): " in str(loaded)
    assert "resnet20 (random weights): " in str(drawn)
    assert all((value == 2).all() for value in loaded.model.state_dict().values())


def test_the_yardstick_and_all_methods_with_a_limit_are_measured() -> None:
    assert NAMES[0] == YARDSTICK
    assert {method for _, method in LIMITS} <= set(NAMES)

"""Passes that take the times they are told; of real ones nothing is said but that they take some."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.study.constraints import Latency
from autoprune.timing import pairs
from autoprune.timing.pairs import LEAST, MOST, PASSES, WARM_UP, Timer, Timing, compare, interval_of_median
from autoprune.timing.passes import Pass
from autoprune.training.runtime import Runtime

RUNTIME = Runtime(threads=1, precision="bf16", channels_last=True)


def taking(milliseconds: Iterable[float]) -> Pass:
    """A pass that takes the given milliseconds, one after the other, the last for ever."""
    left: Iterator[float] = itertools.chain(list(milliseconds), itertools.repeat(list(milliseconds)[-1]))
    return lambda: next(left) / 1000


def timed(own: Iterable[float], dense: Iterable[float], seconds: float = 0.0) -> Timing:
    return compare(taking(own), taking(dense), seconds=seconds)


def test_milliseconds_the_ratio_to_the_dense_model_and_its_interval() -> None:
    found = timed([3.0], [12.0])

    assert found.ms == pytest.approx(3.0)
    assert (found.ratio, found.low, found.high) == (0.25, 0.25, 0.25)


def test_the_warm_up_does_not_count() -> None:
    assert timed([900.0] * WARM_UP + [3.0], [500.0] * WARM_UP + [12.0]).ms == pytest.approx(3.0)


def test_one_slow_pass_changes_nothing() -> None:
    found = timed([3.0] * (WARM_UP + 2) + [70.0, 3.0], [12.0] * (WARM_UP + 4) + [90.0, 12.0])

    assert (found.ms, found.ratio) == (pytest.approx(3.0), pytest.approx(0.25))


def test_what_other_processes_take_is_in_the_milliseconds_and_not_in_the_ratio() -> None:
    block = [9.0, 3.0, 9.0, 9.0, 5.0, 9.0, 3.0]
    found = timed(
        [3.0] * WARM_UP + block * LEAST, [12.0] * WARM_UP + [13.0, 50.0, 12.0, 12.0, 30.0, 12.0, 40.0] * LEAST
    )

    assert (found.ms, found.ratio) == (pytest.approx(9.0), pytest.approx(0.25))


def test_a_machine_that_slows_down_changes_the_milliseconds_and_not_the_ratio() -> None:
    quick, slow = WARM_UP + 2 * PASSES, (LEAST - 2) * PASSES  # of six blocks the last four are eleven times slower
    found = timed([3.0] * quick + [33.0] * slow, [12.0] * quick + [132.0] * slow)

    assert (found.ms, found.ratio) == (pytest.approx(33.0), pytest.approx(0.25))


def test_noise_widens_the_interval_and_more_blocks_narrow_it_until_the_time_is_over() -> None:
    noise = np.random.default_rng(3).uniform(1.0, 1.3, size=(2, WARM_UP + MOST * PASSES))
    short, long = (timed(3.0 * noise[0], 12.0 * noise[1], seconds=limit) for limit in (0.0, 1000.0))

    assert short.low <= short.ratio <= short.high
    assert long.low <= long.ratio <= long.high
    assert long.high - long.low <= pairs.NARROW * long.ratio < short.high - short.low


def test_models_take_turns_by_blocks_and_each_comes_first_as_often() -> None:
    log: list[str] = []

    def named(name: str) -> Pass:
        return lambda: log.append(name) or 1.0  # type: ignore[func-returns-value]

    compare(named("own"), named("dense"), seconds=0.0)
    turns = [tuple(log[i : i + PASSES]) for i in range(2 * WARM_UP, len(log), PASSES)]

    assert all(len(set(turn)) == 1 for turn in turns)
    assert [turn[0] for turn in turns] == ["own", "dense", "dense", "own"] * (LEAST // 2)


class TestIntervalOfMedian:
    def test_of_six_it_is_the_lowest_and_the_highest(self) -> None:
        """Both on one side: 2 / 2**6 = 0.03, and 2 * 7 / 2**6 = 0.22 for the next ones in."""
        assert interval_of_median([6.0, 1.0, 5.0, 2.0, 4.0, 3.0]) == (1.0, 6.0)

    def test_of_nine_it_is_the_second_from_both_ends(self) -> None:
        """2 * (1 + 9) / 2**9 = 0.039, and with the 36 pairs of the third ones in 0.18."""
        assert interval_of_median([float(n) for n in range(9)]) == (1.0, 7.0)

    def test_it_holds_the_median_as_often_as_it_says(self) -> None:
        draws = np.random.default_rng(5).exponential(size=(4000, 13))
        found = [interval_of_median(row.tolist()) for row in draws]
        inside = np.mean([low <= np.log(2) <= high for low, high in found])

        assert 0.95 <= inside <= 0.99


class TestTimer:
    @pytest.fixture
    def shapes(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, tuple[int, ...]]]:
        """The batches and weights of passes that were built; nothing is timed."""
        built: list[tuple[int, tuple[int, ...]]] = []

        def build(model: nn.Module, inputs: tuple[Tensor], _latency: Latency, _runtime: Runtime) -> Pass:
            built.append((len(inputs[0]), tuple(next(model.parameters()).shape)))
            return lambda: 1.0

        monkeypatch.setattr(pairs, "build_pass", build)
        return built

    def timer(self) -> Timer:
        return Timer(lambda: nn.Conv2d(5, 11, 3), (torch.zeros(1, 5, 7, 7),), RUNTIME)

    def test_models_of_the_same_widths_are_timed_once_and_the_dense_one_is_built_once(
        self, shapes: list[tuple[int, tuple[int, ...]]]
    ) -> None:
        timer = self.timer()
        for width in (3, 7, 3, 7, 3):
            timer.time(nn.Conv2d(5, width, 3), Latency())

        assert shapes == [(1, (11, 5, 3, 3)), (1, (3, 5, 3, 3)), (1, (7, 5, 3, 3))]

    def test_another_batch_is_another_time(self, shapes: list[tuple[int, tuple[int, ...]]]) -> None:
        timer = self.timer()
        for batch in (1, 13):
            timer.time(nn.Conv2d(5, 3, 3), Latency(batch=batch))

        assert [batch for batch, _ in shapes] == [1, 1, 13, 13]

    def test_pytorch_has_as_many_threads_as_are_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: set[int] = set()

        def build(*_: object) -> Pass:
            return lambda: seen.add(torch.get_num_threads()) or 1.0  # type: ignore[func-returns-value]

        monkeypatch.setattr(pairs, "build_pass", build)
        self.timer().time(nn.Conv2d(5, 3, 3), Latency(threads=2))

        assert seen == {2}

    def test_real_models(self) -> None:
        found = self.timer().time(nn.Conv2d(5, 3, 3), Latency(batch=2))

        assert found.ms > 0
        assert 0 < found.low <= found.ratio <= found.high

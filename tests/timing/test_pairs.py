"""Times of a clock that only moves when a model says so; of the real clock nothing is said but that it moves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoprune.training import latency
from autoprune.training.latency import LEAST, MOST, WARM_UP, Timer, Timing, measure
from autoprune.training.runtime import Runtime

RUNTIME = Runtime(threads=1, precision="bf16", channels_last=True)


class FakeClock:
    """Stands still until a model moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Taking(nn.Module):
    """A model whose passes take the given milliseconds, one after the other, the last one for ever."""

    def __init__(self, clock: FakeClock, *milliseconds: float, log: list[str] | None = None, name: str = "") -> None:
        super().__init__()
        self.clock, self.left, self.log, self.name = clock, list(milliseconds), log, name
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += (self.left.pop(0) if len(self.left) > 1 else self.left[0]) / 1000
        if self.log is not None:
            self.log.append(self.name)
        self.seen.append(x)
        return x


def timed(own: tuple[float, ...], dense: tuple[float, ...], seconds: float = 0.0) -> Timing:
    clock = FakeClock()
    inputs = (torch.zeros(3, 5, 7, 7),)
    return measure(Taking(clock, *own), Taking(clock, *dense), inputs, RUNTIME, clock=clock, seconds=seconds)


def test_milliseconds_and_the_ratio_to_the_dense_model() -> None:
    found = timed((3.0,), (12.0,))

    assert found.ms == pytest.approx(3.0)
    assert found.ratio == pytest.approx(0.25)


def test_the_warm_up_does_not_count() -> None:
    assert timed((900.0,) * WARM_UP + (3.0,), (500.0,) * WARM_UP + (12.0,)).ms == pytest.approx(3.0)


def test_one_slow_pass_changes_nothing() -> None:
    found = timed((3.0,) * (WARM_UP + 2) + (70.0, 3.0), (12.0,) * (WARM_UP + 4) + (90.0, 12.0))

    assert (found.ms, found.ratio) == (pytest.approx(3.0), pytest.approx(0.25))


def test_what_other_processes_take_is_in_the_milliseconds_and_not_in_the_ratio() -> None:
    own = (3.0,) * WARM_UP + (9.0, 3.0, 9.0, 9.0, 5.0, 9.0, 3.0)
    dense = (12.0,) * WARM_UP + (13.0, 50.0, 12.0, 12.0, 30.0, 12.0, 40.0)
    found = timed(own, dense)

    assert (found.ms, found.ratio) == (pytest.approx(9.0), pytest.approx(0.25))


def test_a_machine_that_slows_down_changes_the_milliseconds_and_not_the_ratio() -> None:
    quick, slow = WARM_UP + 2, 5  # of seven pairs the last five are eleven times slower
    found = timed((3.0,) * quick + (33.0,) * slow, (12.0,) * quick + (132.0,) * slow)

    assert (found.ms, found.ratio) == (pytest.approx(33.0), pytest.approx(0.25))


def test_they_take_turns_and_each_comes_first_as_often() -> None:
    clock, log = FakeClock(), []
    pair = [Taking(clock, 1.0, log=log, name=name) for name in ("own", "dense")]
    measure(*pair, (torch.zeros(1, 1, 1, 1),), RUNTIME, clock=clock, seconds=0.0)
    turns = [tuple(log[i : i + 2]) for i in range(2 * WARM_UP, len(log), 2)]

    assert len(turns) == LEAST
    assert turns == [("own", "dense") if i % 2 == 0 else ("dense", "own") for i in range(LEAST)]


@pytest.mark.parametrize(("seconds", "pairs"), [(0.0, LEAST), (0.149, 10), (1000.0, MOST)])
def test_it_goes_on_until_the_seconds_are_over(seconds: float, pairs: int) -> None:
    clock = FakeClock()
    own = Taking(clock, 3.0)
    measure(own, Taking(clock, 12.0), (torch.zeros(1, 1, 1, 1),), RUNTIME, clock=clock, seconds=seconds)

    assert len(own.seen) == WARM_UP + pairs  # a pair takes 15 ms


def test_in_fp32_in_the_memory_format_of_the_runtime_and_in_eval_mode() -> None:
    clock = FakeClock()
    own, dense = Taking(clock, 3.0).train(), Taking(clock, 12.0).train()
    measure(own, dense, (torch.zeros(3, 5, 7, 7),), RUNTIME, clock=clock, seconds=0.0)

    for x in (*own.seen, *dense.seen):
        assert (x.shape, x.dtype) == ((3, 5, 7, 7), torch.float32)
        assert x.is_contiguous(memory_format=torch.channels_last)
    assert not own.training
    assert not dense.training


def test_real_models_on_the_real_clock() -> None:
    found = measure(nn.Conv2d(5, 3, 3), nn.Conv2d(5, 11, 3), (torch.zeros(2, 5, 7, 7),), RUNTIME, seconds=0.0)

    assert found.ms > 0
    assert found.ratio > 0


class TestTimer:
    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
        """The shapes of what was timed; nothing is."""
        shapes: list[tuple[int, ...]] = []

        def fake(model: nn.Module, dense: nn.Module, inputs: tuple[Tensor], runtime: Runtime) -> Timing:
            shapes.append(tuple(inputs[0].shape))
            return Timing(ms=float(len(shapes)), ratio=0.5)

        monkeypatch.setattr(latency, "measure", fake)
        return shapes

    def test_models_of_the_same_widths_are_timed_once(self, calls: list[tuple[int, ...]]) -> None:
        built = []
        timer = Timer(lambda: built.append(1) or nn.Conv2d(5, 11, 3), (torch.zeros(1, 5, 7, 7),), RUNTIME)  # type: ignore[func-returns-value]
        times = [timer.time(nn.Conv2d(5, width, 3), 1).ms for width in (3, 7, 3, 7, 3)]

        assert times == [1.0, 2.0, 1.0, 2.0, 1.0]
        assert calls == [(1, 5, 7, 7)] * 2
        assert built == [1]

    def test_another_batch_is_another_time(self, calls: list[tuple[int, ...]]) -> None:
        timer = Timer(lambda: nn.Conv2d(5, 11, 3), (torch.zeros(1, 5, 7, 7),), RUNTIME)

        assert [timer.time(nn.Conv2d(5, 3, 3), batch).ms for batch in (1, 13)] == [1.0, 2.0]
        assert calls == [(1, 5, 7, 7), (13, 5, 7, 7)]

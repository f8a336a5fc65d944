"""How many trainings share a GPU: twice as many while they give more, and as memory holds; without a GPU."""

from __future__ import annotations

import pytest
import torch
from fake_graphs import FAKES_OF_CUDA, capture_on_cpu
from user_tasks import build, images

from autoprune.training import gpu_sharing
from autoprune.training.captured import CaptureError
from autoprune.training.gpu_sharing import CONTEXT, LEAST_GAIN, trainings_that_pay
from autoprune.training.memory import GIB
from autoprune.training.runtime import Runtime

#: What a training takes, beside what CUDA takes itself, and how many bytes the gradients of a batch take of that.
TRAINING, GRADIENTS = 3 * GIB, 1.5 * GIB


class FewImages:
    """A task, as far as a measurement asks for it."""

    train = range(7)

    def __init__(self) -> None:
        class Source(list):
            def batches(self, order, size, device):
                yield images(len(order)), torch.zeros(len(order), dtype=torch.long)

        self.train = Source(range(7))

    def loss(self, forward, batch):
        class Loss:
            value = forward(batch[0]).square().mean()

        return Loss()


@pytest.fixture
def card(monkeypatch):
    """A GPU with room for so many trainings; `speeds`: of so many together, where not given as many times as of one."""

    def give(room: float, speeds=None):
        memory = {
            "reset_peak_memory_stats": lambda _device: None,
            "mem_get_info": lambda _device: (int(room * (TRAINING + CONTEXT)) - GIB, 80 * GIB),
            "memory_reserved": lambda _device: GIB,
            "max_memory_allocated": lambda _device: GRADIENTS,
            "synchronize": lambda _device: None,
        }
        for name, fake in {**FAKES_OF_CUDA, **memory}.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(gpu_sharing, "capture", capture_on_cpu)
        if speeds is not None:
            monkeypatch.setattr(gpu_sharing, "_passes_a_second", lambda replays, _device: speeds[len(replays)])

    return give


def count(memory=None, *, graphs=True) -> int:
    return trainings_that_pay(build(), FewImages(), 7, Runtime(graphs=graphs), memory)


@pytest.mark.parametrize(
    ("speeds", "trainings"),
    [
        ({1: 49.1, 2: 62.8, 4: 82.5, 8: 91.7}, 8),
        ({1: 86.2, 2: 104.4, 4: 116.1, 8: 118.5}, 4),
        ({1: 100.0, 2: 101.0}, 2),
    ],
)
def test_twice_as_many_share_a_gpu_while_that_gives_a_tenth_more(card, speeds, trainings):
    assert LEAST_GAIN == 1.1
    card(100, speeds)

    assert count() == trainings


@pytest.mark.parametrize(("room", "trainings"), [(0.3, 1), (1.9, 1), (2.1, 2), (3.9, 2), (4.1, 4)])
def test_no_more_share_a_gpu_than_its_memory_holds(card, room, trainings):
    card(room, {1: 1.0, 2: 2.0, 4: 4.0})

    assert count() == trainings


def test_a_limit_for_the_memory_of_a_trial_says_what_one_takes(card):
    card(4.1, {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0})

    assert count(memory=(TRAINING + CONTEXT) / GIB / 2) == 8


@pytest.mark.parametrize(("room", "trainings"), [(5.5, 5), (50, 8)])
def test_as_many_as_have_room_share_a_gpu_if_steps_cannot_be_captured(card, monkeypatch, room, trainings):
    card(room, {})

    def refuse(*_):
        raise CaptureError("waits for the device")

    assert count(graphs=False) == trainings
    monkeypatch.setattr(gpu_sharing, "capture", refuse)
    assert count() == trainings


def test_speed_is_that_of_all_together(card, monkeypatch):
    card(100)
    calls, now = [], iter(range(100))
    monkeypatch.setattr(gpu_sharing.time, "perf_counter", lambda: float(next(now)))  # each time it is looked at, 1 s
    replays = [lambda number=number: calls.append(number) for number in range(3)]

    assert gpu_sharing._passes_a_second(replays, "cpu") == 3.0
    assert calls == 3 * [0, 1, 2]

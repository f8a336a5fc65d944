"""Files are decoded in order and augmented by seed and place; one that cannot be read is named."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from autoprune.errors import DataError
from autoprune.tasks import file_batches
from autoprune.tasks.file_batches import decoded_batches, decoding_processes


@dataclass(frozen=True)
class Numbers:
    torn: int = -1

    def name(self, index: int) -> str:
        return f"{index}.png"

    def decode(self, index: int, stream: torch.Generator | None) -> tuple[int, float]:
        if index == self.torn:
            raise OSError("broken data stream\nand more")
        return index, 0.0 if stream is None else float(torch.rand((), generator=stream))


def batches(order: list[int], *, torn: int = -1, workers: int = 0, seed: int | None = None, start: int = 0) -> list:
    found = decoded_batches(Numbers(torn), torch.tensor(order), 3, list, workers=workers, seed=seed, start=start)
    return list(found)


def test_batches_follow_the_order_and_the_last_may_be_smaller() -> None:
    assert batches([5, 2, 9, 9, 0]) == [[(5, 0.0), (2, 0.0), (9, 0.0)], [(9, 0.0), (0, 0.0)]]


def test_each_place_has_its_own_draw_and_batches_left_out_change_none() -> None:
    whole = batches([7, 7, 7, 7, 7, 7, 7], seed=11)
    draws = [draw for batch in whole for _, draw in batch]

    assert len(set(draws)) == 7
    assert batches([7, 7, 7, 7, 7, 7, 7], seed=11, start=1) == whole[1:]
    assert batches([7, 7, 7, 7, 7, 7, 7], seed=12) != whole


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_cannot_be_read_is_named_in_one_line(workers: int) -> None:
    with pytest.raises(DataError) as caught:
        batches([1, 2, 3, 13, 4], torn=13, workers=workers)

    assert str(caught.value) == "13.png: cannot be read: broken data stream"


def test_the_caller_s_random_numbers_are_not_drawn() -> None:
    before = torch.get_rng_state()
    batches([5, 2, 9, 9, 0], seed=11)

    assert torch.equal(before, torch.get_rng_state())


def test_more_workers_than_cpus_are_not_started() -> None:
    assert batches([5, 2], workers=4096) == [[(5, 0.0), (2, 0.0)]]


@pytest.mark.parametrize(
    ("cpus", "threads", "beside_cpu", "beside_gpu"),
    [
        (1, 1, 0, 0),
        (64, 1, 0, 0),
        (64, 2, 0, 0),
        (64, 3, 0, 2),
        (64, 4, 2, 3),
        (3, 4, 0, 2),
        (64, 15, 7, 14),
        (64, 64, 16, 16),
    ],
)
def test_processes_are_chosen_by_the_cpus_of_the_training(
    cpus: int, threads: int, beside_cpu: int, beside_gpu: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_batches.os, "sched_getaffinity", lambda _pid: set(range(cpus)))
    monkeypatch.setattr(file_batches.torch, "get_num_threads", lambda: threads)

    assert decoding_processes(None) == beside_cpu
    assert decoding_processes(None, "cuda") == beside_gpu
    assert decoding_processes(3) == min(3, cpus)
    assert decoding_processes(0) == 0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_for_a_gpu_lie_where_it_reads_them_while_it_computes(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    class Loader(list):
        def __init__(self, _dataset: object, **options: object) -> None:
            asked.update(options)

    monkeypatch.setattr(torch.utils.data, "DataLoader", Loader)
    list(decoded_batches(Numbers(), torch.tensor([5, 2]), 3, list, workers=0, seed=None, start=0, device=device))

    assert asked["pin_memory"] == (device == "cuda")

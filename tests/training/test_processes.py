"""What several processes share; `tests/contract/test_trials_of_two_processes.py` runs whole trials in two of them."""

import pytest
import ranks
import torch
from torch import distributed, nn

from autoprune.errors import InputError
from autoprune.recipe import Training
from autoprune.tasks import load_task
from autoprune.training.evaluate import evaluate
from autoprune.training.fit import fit
from autoprune.training.processes import ALONE, Processes
from autoprune.training.runtime import Runtime


def test_a_process_alone_asks_nobody(monkeypatch):
    for name in ("all_reduce", "all_gather_object", "broadcast_object_list", "broadcast"):
        monkeypatch.setattr(distributed, name, lambda *_: 1 / 0)
    ALONE.add_up(total := torch.tensor(7.0))
    ALONE.add_up_all([total])
    ALONE.spread(nn.Linear(3, 1))

    assert Processes.current() is ALONE
    assert ALONE.leads
    assert ALONE.alone
    assert total.item() == 7.0
    assert ALONE.agree("a") == "a"
    assert ALONE.gather("a") == ["a"]
    assert ALONE.part_of([3, 5, 7]) == [3, 5, 7]


def share(processes: Processes) -> dict:
    """What each of three processes holds after it has shared something of its own, its rank above all."""
    rank = processes.rank
    one, row = torch.tensor(1.0 + rank), torch.tensor([3.0 * rank, 5.0])
    processes.add_up_all([one, row])
    linear = nn.Linear(1, 1)
    nn.init.constant_(linear.weight, 0.5 + rank)
    processes.spread(linear)
    return {
        "added": [one.item(), row.tolist()],
        "agreed": processes.agree({"rank": rank}),
        "gathered": processes.gather((rank, "x" * rank)),
        "spread": linear.weight.item(),
        "part": processes.part_of(list(range(7))),
    }


def test_what_each_of_three_processes_knows_of_the_others(tmp_path):
    found = ranks.in_processes(3, tmp_path, share)

    assert [each.pop("part") for each in found] == [[0, 1], [2, 3], [4, 5, 6]]
    assert (
        found
        == [
            {
                "added": [1.0 + 2.0 + 3.0, [3.0 + 6.0, 15.0]],
                "agreed": {"rank": 0},
                "gathered": [[0, ""], [1, "x"], [2, "xx"]],
                "spread": 0.5,
            }
        ]
        * 3
    )


def metrics(processes: Processes) -> dict:
    """Accuracies on the validation split: counted in parts, by one of torchmetrics, and by one of no known kind."""
    found = {}
    for name in ("accuracy", "MulticlassF1Score", "MulticlassAUROC"):
        named = {} if name == "accuracy" else {"metric": {"name": name, "num_classes": 10}}
        task = load_task({**ranks.TASK, **named})
        found[name] = evaluate(task.build(seed=1), task.validation, task, Runtime(), processes)
    return found


def test_a_metric_counted_in_parts_is_that_of_all_images(tmp_path):
    """Five processes for three batches: two of them have nothing to count."""
    alone = metrics(ALONE)

    assert len(load_task(ranks.TASK).validation) == 2 * 125 + 50
    assert ranks.in_processes(5, tmp_path, metrics) == [pytest.approx(alone, rel=1e-6)] * 5
    assert 0 < alone["accuracy"] < 0.5


@pytest.mark.parametrize("accumulate", [1, 2])
def test_more_processes_than_images_of_a_pass_are_refused(digits, small, accumulate):
    training = Training(batch_size=6, accumulate=accumulate)
    with pytest.raises(InputError, match=rf"7 processes for a pass of {6 // accumulate} images") as refused:
        fit(small, digits, training, Runtime(), images=64, seed=0, processes=Processes(rank=1, count=7))
    assert refused.value.where == "resources.processes_per_trial"


def test_only_the_first_process_writes_the_checkpoint(digits, small, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "all_reduce", lambda tensor: tensor.mul_(2))
    monkeypatch.setattr(distributed, "broadcast", lambda tensor, _rank: tensor)
    for rank in (1, 0):
        processes, file = Processes(rank=rank, count=2), tmp_path / "stage.pt"
        training = Training(batch_size=64)
        fit(small, digits, training, Runtime(), images=64, seed=0, checkpoint=file, keep_last=True, processes=processes)
        assert file.exists() == (rank == 0)

"""Tables and verdicts on papers' claims, from rows made up by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nets import Residual, image, randomised
from regularisers import context

from autoprune.analysis.claims import mechanisms, mechanisms_runs
from autoprune.analysis.claims import mechanisms_rebuilt as rebuilt
from autoprune.analysis.claims import mechanisms_selecting as selecting
from autoprune.analysis.claims import mechanisms_speed as speed
from autoprune.analysis.claims.mechanisms_common import by_rank, rounded, verdict
from autoprune.analysis.claims.mechanisms_regularised import recovered
from autoprune.analysis.claims.methods_cifar10 import Plan, is_run_of, label, table
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.low_rank import decompose
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.recipe import Training
from autoprune.tasks.zoo import ResNet
from autoprune.training.runtime import Runtime

TRAINING = Training(images=100_000, lr=0.03)


def row(method: str, after: float, seed: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "method": method,
        "params": {},
        "flops": 0.5,
        "seed": seed,
        "split": "test",
        "images": 100_000,
        "lr": 0.03,
        "status": "completed",
        "error": None,
        "before": after / 2,
        "after": after,
        "seconds": {"finetune": 90.0},
        "notes": {},
        "pruned": {"a": [0, 2, 5]},
        **changes,
    }


def test_a_table_has_means_deviations_and_what_l1_prunes_too() -> None:
    rows = [row("l1", 0.9), row("l1", 0.92, 1), row("sfp", 0.95, pruned={"a": [0, 3, 5]}), row("dense", 0.97)]
    text = table([*rows, row("sfp", 0.1, split="validation")])

    assert "| l1 | 2 | 45.50 ± 0.71 | 91.00 ± 1.41 | 1.5 | 100% |  |" in text
    assert "| sfp | 1 | 47.50 | 95.00 | 1.5 | 67% |  |" in text
    assert text.index("| dense (100 %)") < text.index("| sfp") < text.index("| l1")


def test_a_failed_run_is_in_the_table_with_its_reason() -> None:
    failed = {**row("sfp", 0.0), "after": None, "before": None, "status": "failed", "error": "the loss is nan"}

    assert "| sfp | 1 | failed | failed |" in table([failed])
    assert "sfp, seed 0: the loss is nan" in table([failed])


def test_what_is_unusual_about_a_run_is_in_its_label() -> None:
    assert label(row("l1", 0.9)) == "l1"
    assert label(row("l1", 0.9, images=50_000)) == "l1, 50,000 images"
    assert (
        label(row("orthoreg", 0.9, weights="scratch", params={"share": 0.15})) == "orthoreg, from scratch, share 0.15"
    )


def test_a_run_is_not_repeated_and_another_one_is() -> None:
    plan = Plan("l1", {}, 0.5, 0)

    assert is_run_of(row("l1", 0.9), plan, TRAINING, "test")
    assert not is_run_of(row("l1", 0.9), plan, TRAINING, "validation")
    assert not is_run_of(row("l1", 0.9, weights="scratch"), plan, TRAINING, "test")
    assert not is_run_of(row("l1", 0.9, seed=1), plan, TRAINING, "test")


@pytest.mark.parametrize(
    ("differences", "expected"),
    [([0.6], "yes"), ([-0.6], "no"), ([0.4], "unclear"), ([1.0, 1.2, 0.8], "yes"), ([1.0, -0.8, 0.2], "unclear")],
)
def test_a_verdict_needs_two_standard_errors(differences: list[float], expected: str) -> None:
    assert verdict(differences) == expected


def test_methods_are_compared_seed_by_seed() -> None:
    rows = [row("a", 0.90), row("a", 0.92, 1), row("b", 0.88), row("b", 0.91, 1), row("b", 0.5, 2)]

    assert mechanisms_runs.compared(rows, "a", "b", "after") == ("+1.50 points at 50% (+2.00, +1.00)", "yes")


def test_recovering_units_are_those_that_stay_though_they_were_pressed() -> None:
    courses = np.array([[0.0, 0.5, 0.0], [0.2, 0.6, 1.0], [0.0, 0.005, 0.0], [0.1, 0.3, 0.2]])
    found = recovered(courses, np.array([True, False, True, True]))

    assert found["pressed and alive"] == 2
    assert found["of them under no penalty at the end"] == 1
    assert found["recovering"] == [[0.0, 0.5, 0.0], [0.1, 0.3, 0.2]]
    assert found["removed"] == [[0.2, 0.6, 1.0]]


def test_a_rank_correlation_needs_two_standard_errors_too() -> None:
    assert [by_rank(rho, 17) for rho in (0.51, 0.49, -0.49, -0.51)] == ["yes", "unclear", "unclear", "no"]


def test_written_numbers_have_few_digits_and_counts_all_of_theirs() -> None:
    found = rounded({"a": [0.123456, 12345, np.float64(98765.4)], "b": np.array([1e-7 / 3])})

    assert found == {"a": [0.1235, 12345, 98770.0], "b": [3.333e-08]}


def test_the_page_has_what_was_measured_and_no_more() -> None:
    found: dict[str, Any] = {
        "images read": 0,
        "processor seconds": 1.25,
        "beta": 0.5,
        "sizes": {"a": 7},
        "kept": {"a": 7},
    }
    found["exemplars at 0.75"] = {"a": 1}
    page = mechanisms.page({"epruner": {"images": 256, "machine": "a machine", **found}}, [row("sfp", 0.9)])

    assert "| EPruner needs no data to prune | 0 images read by score, selection and cut; 1.2 s" in page
    assert "![epruner](epruner.svg)" in page
    assert "LDRF" not in page


def test_reconstructions_are_compared_target_by_target() -> None:
    ours, worse, better = ({"as cut": a, "re-estimated": 0.9} for a in (0.8, 0.5, 0.85))
    targets = [{"flops": 0.7, "ldrf": ours, "channel_pruning": worse, "prune": worse}]
    targets += [{"flops": 0.3, "ldrf": ours, "channel_pruning": better, "prune": worse}]

    claims = list(rebuilt.ldrf_claims({"targets": targets}))

    assert claims[0][1] == "80.0 / 50.0 % at 70%, 80.0 / 85.0 % at 30% of the FLOPs"
    assert [verdict for _, _, verdict in claims] == ["yes, no", "unclear", "yes", "unclear"]


def test_a_layer_of_lower_rank_adds_to_the_whole_stream() -> None:
    net = randomised(ResNet((3, 9, 9), 5, blocks=(2,), widths=(7,), option="A"))
    split = decompose(net, ["layer1.1.conv2"])
    graph, keep = trace(split, image()), Keep.of({"layer1.1.conv2.basis": [0, 2, 5], "layer1.0.conv1": [1, 2, 3, 6]})

    dense = rebuilt.blocks(net, trace(net, image()), Keep.all())
    found = rebuilt.blocks(prune(split, graph, keep), graph, keep)

    whole, pixels = 2 * 2 * 9 * 9 * 7 * 63, 2 * 2 * 9 * 9
    assert dense == {"flops": [whole, whole], "inputs": [7, 7], "rank": [7, 7], "stream": [7, 7]}
    assert found["flops"] == [pixels * 7 * 36, pixels * (3 * 63 + 7 * 3)]
    assert (found["inputs"], found["rank"], found["stream"]) == ([4, 7], [7, 3], [7, 7])


def hinges(**changes: Any) -> dict[str, Any]:
    dense = {"flops": [100, 100], "inputs": [10, 10], "rank": [10, 10], "stream": [10, 10]}
    left = {"flops left": 0.5, "accuracy": 0.8}
    split = {**dense, **left, "flops": [40, 70], "rank": [3, 6], **changes}
    narrow = {**dense, **left, "flops": [56, 56], "inputs": [8, 8], "stream": [7, 7], "rank": [7, 7]}
    inside = {**dense, **left, "flops": [80, 80], "inputs": [8, 8]}
    return {"dense": dense, **dict.fromkeys(rebuilt.HINGES, split), "l1": narrow, "l1, streams left whole": inside}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, "yes"), ({"stream": [10, 9]}, "no"), ({"flops": [40, 50], "inputs": [10, 5]}, "no")],
)
def test_a_stream_that_gets_narrower_or_fewer_inputs_alone_do_not_count(changes: dict[str, Any], expected: str) -> None:
    claims = list(rebuilt.hinge_claims(hinges(**changes)))

    assert [verdict for _, _, verdict in claims] == [expected, expected, "yes"]
    told = "`l1`: 70% to 70% of it, streams 10 -> 7; `l1, streams left whole`: 100% to 100% of it"
    assert claims[-1][1] == f"{told}, streams as wide as before"


def test_shapes_of_scores_and_shares_that_go() -> None:
    scores = {"stem.0": np.array([0.4, 1.0, 1.0, 1.0, 1.2, 1.2, 1.2]), "b1.0": np.ones(11)}
    found = selecting.shapes(scores)

    assert found["spread"] == pytest.approx([np.sqrt((0.36 + 3 * 0.04) / 7), 0])
    assert found["low"] == [1 / 7, 0]
    assert found["skewness"][0] < -1
    keep = Keep.of({"stem.0": [0, 1, 2, 3, 4]})
    assert selecting.gone(context(Residual()).graph, keep, scores) == pytest.approx([2 / 7, 0])


def test_a_long_tail_counts_on_either_side() -> None:
    assert selecting.related([-3, 0.5, 1, -2], [0.9, 0.1, 0.2, 0.5]) == pytest.approx(1)


def test_images_that_a_method_asks_for_are_noticed() -> None:
    counter = selecting.Counter()

    with pytest.raises(LookupError, match="48 images"):
        next(counter(48))
    assert counter.asked == 48


def test_exemplars_are_found_and_counted_without_images() -> None:
    given = context(randomised(Residual(13, 17)))
    found = selecting.epruner(SimpleNamespace(context=lambda *_: given, model=given.model, graph=given.graph), 0)  # type: ignore[arg-type]

    assert found["images read"] == 0
    assert found["sizes"] == {"stem.0": 13, "a1.0": 17, "b1.0": 17}
    assert all(1 <= found["kept"][group] <= size for group, size in found["sizes"].items())
    assert sum(found["kept"].values()) < 47


def test_every_model_is_timed_in_every_round() -> None:
    shared: Any = SimpleNamespace(exact=Runtime(), task=SimpleNamespace(example=lambda: (image(),)))
    found = speed.times(shared, {"small": Residual(3, 3), "large": Residual(64, 512)}, 128, rounds=3)

    assert [len(found["small"]), len(found["large"])] == [3, 3]
    assert max(found["small"]) < min(found["large"])


@pytest.mark.parametrize(
    ("memory", "expected"),
    [([0.080, 0.091, 0.082], "yes"), ([0.110, 0.121, 0.112], "no"), ([0.090, 0.110, 0.101], "unclear")],
)
def test_latencies_are_compared_round_by_round(memory: list[float], expected: str) -> None:
    seconds = {"dense": [0.2] * 3, "memory": memory, "flops": [0.1, 0.101, 0.099], "none": [0.1] * 3}
    claims = list(speed.latency_claims({"a, b": {"1": speed._summed_up(seconds)}, "images": 7}))

    assert [verdict for _, _, verdict in claims] == [expected]
    assert "dense 200 (200 to 200)" in claims[0][1]

"""Group Fisher: whether channels that are compared by memory give faster models than those compared by FLOPs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune import methods
from autoprune.analysis.claims.mechanisms_common import HALF, Claim, Found, build, rounded, staged, verdict
from autoprune.analysis.claims.methods_cifar10 import Row
from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.recipe import Allocation
from autoprune.study.space_file import load_space
from autoprune.tasks import load_task
from autoprune.training.batch_structure import repeated
from autoprune.trial.shared import SharedState

NORMALISERS = ("memory", "flops", "none")
GLOBAL = Allocation(name="global", normalise="none")
#: Networks by the space that has them; only the first is trained while channels go.
SPACES = {"ResNet-20": "cifar10_resnet20", "ResNet-56": "cifar10_resnet56"}
STAGED, AT_ONCE = "ResNet-20, removed one by one", "{}, removed at once"


def group_fisher(shared: SharedState, images: int) -> Found:
    """Widths, costs and accuracy at half of the FLOPs for each normaliser: by a stage, and by scores alone."""
    found: Found = {STAGED: {}}
    for name in NORMALISERS:
        done = staged(shared, "group_fisher", {"normaliser": name}, images, GLOBAL)
        assert done.keep is not None
        found[STAGED][name] = {"accuracy": done.outcome.accuracy, **_costs_and_widths(shared, done.keep)}
    for network in SPACES:
        found[AT_ONCE.format(network)] = _at_once(_shared_state(shared, network))
    plain: Found = rounded(found)
    return plain


def _at_once(shared: SharedState) -> Found:
    context = shared.context(shared.model, 0)
    scored = {name: build("group_fisher", normaliser=name) for name in NORMALISERS}
    return {
        name: _costs_and_widths(shared, method.select(context, method.score(context), HALF, GLOBAL).keep)
        for name, method in scored.items()
    }


def _shared_state(shared: SharedState, network: str) -> SharedState:
    """The network with its pretrained weights, in the runtime of `shared`."""
    return SharedState.of(load_task(load_space(SPACES[network], find_method=methods.find).task), shared.runtime)


def _costs_and_widths(shared: SharedState, keep: Keep) -> Found:
    return {**cost(shared.graph, keep).ratios(shared.dense_cost), "widths": keep.widths(shared.graph)}


# ---- latency ---------------------------------------------------------------------------------------------------------

#: Batch size -> passes of which the fastest counts; in all rounds models take turns.
PASSES = {1: 20, 128: 2}
ROUNDS = 20


def latency(shared: SharedState, found: Found) -> Found:
    """Seconds of a forward pass in fp32 of the dense models and of those that `group_fisher` found."""
    timed: Found = {}
    for selection, chosen in found.items():
        if isinstance(chosen, dict):
            other = _shared_state(shared, selection.partition(",")[0])
            models = {
                "dense": other.model,
                **{name: _cut_to_widths(other, one["widths"]) for name, one in chosen.items()},
            }
            timed[selection] = {str(batch): _summed_up(times(other, models, batch)) for batch in PASSES}
    plain: Found = rounded(timed)
    return plain


def _cut_to_widths(shared: SharedState, widths: Mapping[str, int]) -> nn.Module:
    """A model of these widths: which units they are makes no difference to its speed."""
    keep = Keep.of({group: range(width) for group, width in widths.items()})
    return prune(shared.model, shared.graph, keep, fold=False)


def times(
    shared: SharedState, models: Mapping[str, nn.Module], batch: int, rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Per model and round, seconds of the fastest of some passes; every second round goes through them backwards."""
    runtime, found = shared.exact, dict[str, list[float]]((name, []) for name in models)
    placed = {name: runtime.place(model).eval() for name, model in models.items()}
    inputs = runtime.arrange(repeated(shared.task.example(), batch))
    with torch.inference_mode(), runtime.limits():
        for turn in range(-1, rounds):  # the first round warms up
            for name in list(placed)[:: -1 if turn % 2 else 1]:
                seconds = min(_timed_pass(placed[name], inputs) for _ in range(PASSES[batch]))
                found[name] += [seconds] * (turn >= 0)
    return found


def _timed_pass(model: nn.Module, inputs: tuple[Any, ...]) -> float:
    began = time.perf_counter()
    model(*inputs)
    return time.perf_counter() - began


def _summed_up(seconds: Mapping[str, Sequence[float]]) -> Found:
    """Milliseconds: median and quartiles; how much faster than by FLOPs in the same round, %, mean and its error."""
    by_flops = np.array(seconds["flops"])
    found: Found = {}
    for name, values in seconds.items():
        low, middle, high = np.percentile(1e3 * np.array(values), [25, 50, 75])
        found[name] = {"median": middle, "quartiles": [low, high]}
        if name in NORMALISERS and name != "flops":
            found[name]["gains"] = (100 * (1 - np.array(values) / by_flops)).tolist()
    return found


def latency_claims(found: Found) -> Iterator[Claim]:
    """Per way of selection and batch size."""
    for selection, batches in found.items():
        for batch, one in batches.items() if isinstance(batches, dict) else ():
            gains = one["memory"]["gains"]
            each = ", ".join(
                f"{name} {_median_and_quartiles(one[name])}" for name in ("memory", "flops", "none", "dense")
            )
            measured = f"ms: {each}; by memory {statistics.median(gains):+.1f} % faster than by FLOPs in the same round"
            claim = "Group Fisher: scores over memory give faster models than scores over FLOPs"
            yield f"{claim}: {selection}, batch {batch}", measured, verdict(gains)


def _median_and_quartiles(one: Found) -> str:
    low, high = one["quartiles"]
    return f"{one['median']:.3g} ({low:.3g} to {high:.3g})"


def group_fisher_claims(found: Found) -> Iterator[Claim]:
    """On the maps that are left."""
    for selection, chosen in found.items():
        if isinstance(chosen, dict):
            left = {name: chosen[name]["activations"] for name in NORMALISERS}
            measured = ", ".join(f"{100 * share:.1f} % ({name})" for name, share in left.items())
            measured += " of the maps left, at " + ", ".join(f"{100 * chosen[n]['flops']:.1f}" for n in NORMALISERS)
            measured += " % of the FLOPs" + _accuracies_text(chosen)
            claim = f"Group Fisher: scores over memory leave smaller maps than scores over FLOPs: {selection}"
            yield claim, measured, verdict([100 * (left["flops"] - left["memory"])])


def _accuracies_text(chosen: Found) -> str:
    if "accuracy" not in chosen["memory"]:
        return ""
    return "; accuracy " + ", ".join(f"{100 * chosen[name]['accuracy']:.1f} %" for name in NORMALISERS)


def draw_group_fisher(axes: Any, found: Found, _runs: Sequence[Row]) -> None:
    """Widths of the network that was trained while channels went, and maps that are left."""
    chosen = found[STAGED]
    for name in NORMALISERS:
        widths = chosen[name]["widths"]
        axes[0].plot(list(widths.values()), marker="o", label=name)
    axes[0].set(xlabel="group, in the order of the network", ylabel="channels left", title="Group Fisher: widths")
    selections = [selection for selection in found if isinstance(found[selection], dict)]
    for number, name in enumerate(NORMALISERS):
        left = [100 * found[selection][name]["activations"] for selection in selections]
        axes[1].bar(np.arange(len(left)) + 0.25 * (number - 1), left, 0.25, label=name)
    axes[1].set(ylabel="% of the maps left", title="at half of the FLOPs", xticks=range(len(selections)))
    axes[1].set_xticklabels([selection.replace(", ", "\n") for selection in selections], fontsize="small")
    axes[0].legend()
    axes[1].legend(loc="lower right")


def draw_latency(axes: Any, found: Found, _runs: Sequence[Row]) -> None:
    """Median and quartiles of the latency relative to the dense model."""
    selections = [selection for selection in found if isinstance(found[selection], dict)]
    for axis, batch in zip(axes, map(str, PASSES), strict=True):
        for number, name in enumerate(NORMALISERS):
            ones = [(found[s][batch][name], found[s][batch]["dense"]["median"]) for s in selections]
            middle = np.array([one["median"] / dense for one, dense in ones])
            ends = np.array([[quartile / dense for quartile in one["quartiles"]] for one, dense in ones]).T
            places = np.arange(len(selections)) + 0.15 * (number - 1)
            axis.errorbar(places, middle, np.abs(ends - middle), fmt="o", capsize=3, label=name)
        axis.set(ylabel="latency / dense", title=f"batch {batch}: median, quartiles", xticks=range(len(selections)))
        axis.set_xticklabels([selection.replace(", ", "\n") for selection in selections], fontsize="small")
        axis.legend()


MEASURED = {"group_fisher": group_fisher}
CLAIMS = {"group_fisher": group_fisher_claims, "latency": latency_claims}
PICTURES = {"group_fisher": draw_group_fisher, "latency": draw_latency}

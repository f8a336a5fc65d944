"""LDRF and Hinge: what becomes of the weights that stay when a layer is decomposed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from autoprune.analysis.claims.mechanisms_common import (
    HALF,
    UNIFORM,
    Claim,
    Found,
    build,
    holds,
    rounded,
    staged,
    verdicts,
)
from autoprune.analysis.claims.methods_cifar10 import Row
from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.cost import cost, flops_by_layer
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.low_rank import Decomposed
from autoprune.engine.surgery.prune import prune
from autoprune.methods import Context
from autoprune.methods.base.units import in_scope
from autoprune.recipe import Target
from autoprune.training.evaluate import evaluate, recalibrate
from autoprune.trial.shared import SharedState

# ---- LDRF: the same channels, three ways to fill in the weights ------------------------------------------------------

TARGETS = (0.7, 0.5, 0.3)
WAYS = ("ldrf", "channel_pruning", "prune")
MOMENTS = ("as cut", "re-estimated")


def ldrf(shared: SharedState, _images: int) -> Found:
    """Accuracy of LDRF's selection, rebuilt by LDRF, by channel pruning and by surgery alone; nothing is trained."""
    context, method = shared.context(shared.model, 0), build("ldrf")
    scores = method.score(context)
    found = []
    for share in TARGETS:
        keep = method.select(context, scores, Target(flops=share), UNIFORM).keep
        accuracies = {way: _accuracies_by_moment(shared, rebuilt(way, context, keep)) for way in WAYS}
        left = cost(shared.graph, keep).ratios(shared.dense_cost)["flops"]
        found.append({"target": share, "flops": round(left, 4), **accuracies})
    return {"dense": evaluate(shared.model, shared.task.validation, shared.task, shared.runtime), "targets": found}


def rebuilt(way: str, context: Context, keep: Keep) -> nn.Module:
    """The smaller model: by a method's own `rebuild`, or cut by surgery with constants folded."""
    return prune(context.model, context.graph, keep) if way == "prune" else build(way).rebuild(context, keep)


def _accuracies_by_moment(shared: SharedState, model: nn.Module) -> dict[str, float]:
    cut = evaluate(model, shared.task.validation, shared.task, shared.runtime)
    recalibrate(model, shared.task, shared.runtime, seed=0)
    return dict(zip(MOMENTS, (cut, evaluate(model, shared.task.validation, shared.task, shared.runtime)), strict=True))


def ldrf_claims(found: Found) -> Iterator[Claim]:
    """Against each of the two others, as cut and with batch norms re-estimated."""
    said = {"channel_pruning": "`channel_pruning`", "prune": "cutting alone"}
    for other, name in said.items():
        for moment in MOMENTS:
            pairs = [(100 * row["ldrf"][moment], 100 * row[other][moment]) for row in found["targets"]]
            each = ", ".join(
                f"{ours:.1f} / {theirs:.1f} % at {row['flops']:.0%}"
                for row, (ours, theirs) in zip(found["targets"], pairs, strict=True)
            )
            claim = f"LDRF: without fine-tuning, more accurate than {name} of the same channels, {_moment_text(moment)}"
            yield claim, f"{each} of the FLOPs", verdicts([[ours - theirs] for ours, theirs in pairs])


def _moment_text(moment: str) -> str:
    return moment if moment == "as cut" else "batch norms re-estimated"


def draw_ldrf(axes: Any, found: Found, _runs: Sequence[Row]) -> None:
    """Accuracy over FLOPs, as cut and with batch norms re-estimated."""
    shares = [row["flops"] for row in found["targets"]]
    for axis, moment in zip(axes, MOMENTS, strict=True):
        for way in WAYS:
            values = [100 * row[way][moment] for row in found["targets"]]
            axis.plot(shares, values, marker="o", label="cut alone" if way == "prune" else way)
        axis.axhline(100 * found["dense"], color="grey", linewidth=0.8)
        axis.set(xlabel="share of the FLOPs", ylabel="accuracy, %", title=f"LDRF's channels, {_moment_text(moment)}")
        axis.legend()


# ---- Hinge: the last convolution of a block --------------------------------------------------------------------------

HINGES: Mapping[str, Mapping[str, Any]] = {
    "hinge, decompose": {"direction": "decompose"},
    "hinge, either, faithful": {"direction": "either", "scope": "faithful"},
}
#: Scopes of plain filter pruning: with the streams, and without.
FILTERS = {"l1": "coupled", "l1, streams left whole": "faithful"}


def hinge(shared: SharedState, images: int) -> Found:
    """Every block's last convolution, what it reads and the stream that it adds to: dense, by Hinge, by `l1`."""
    found = {"dense": blocks(shared.model, shared.graph, Keep.all())}
    for name, params in HINGES.items():
        done = staged(shared, "hinge", params, images)
        assert done.model is not None
        assert done.graph is not None
        assert done.keep is not None
        left = {"flops left": done.outcome.flops_ratio, "accuracy": done.outcome.accuracy}
        found[name] = blocks(done.model, done.graph, done.keep) | left
    context = shared.context(shared.model, 0)
    for name, scope in FILTERS.items():
        keep = _by_l1(context, scope)
        left = {"flops left": cost(shared.graph, keep).ratios(shared.dense_cost)["flops"]}
        found[name] = blocks(prune(shared.model, shared.graph, keep), shared.graph, keep) | left
    plain: Found = rounded(found)
    return plain


def _by_l1(context: Context, scope: str) -> Keep:
    scores = build("l1").score(context)
    groups = {group.id for group in in_scope(context.model, context.graph, scope)}
    return allocate(context.graph, {group: scores[group] for group in scores if group in groups}, HALF, UNIFORM)


def blocks(model: nn.Module, graph: ChannelGraph, keep: Keep) -> Found:
    """Of every block's last convolution, `conv2`, in the order of the network.

    `flops`: at the widths of `keep`. `inputs`: channels that it reads. `stream`: channels that it adds to. `rank`: of
    its weight as a matrix of a row per filter, at most what the layer can have: its inner channels if it is two layers.
    """
    layers = flops_by_layer(graph, keep)
    paths = [path for path, _ in model.named_modules() if path.endswith(".conv2")]
    return {
        "flops": [sum(n for name, n in layers.items() if f"{name}.".startswith(f"{path}.")) for path in paths],
        **{key: [look(model.get_submodule(path)) for path in paths] for key, look in _SIDES.items()},
    }


def _basis_layer(layer: nn.Module) -> Any:
    return layer.basis if isinstance(layer, Decomposed) else layer


def _mixing_layer(layer: nn.Module) -> Any:
    return layer.mix if isinstance(layer, Decomposed) else layer


_SIDES: Mapping[str, Callable[[nn.Module], int]] = {
    "inputs": lambda layer: int(_basis_layer(layer).in_channels),
    "rank": lambda layer: int(_basis_layer(layer).out_channels),
    "stream": lambda layer: int(_mixing_layer(layer).out_channels),
}


def hinge_claims(found: Found) -> Iterator[Claim]:
    """Whether all last convolutions cost less than dense ones of the same inputs while no stream is narrower."""
    dense = found["dense"]
    for name in HINGES:
        one = found[name]
        same = one["stream"] == dense["stream"]
        spared = [ours / plain for ours, plain in zip(one["flops"], _at_full_rank(one, dense), strict=True)]
        claim = f"Hinge compresses the last convolution of residual blocks and leaves the stream whole (`{name}`)"
        measured = (
            f"{sum(share < 1 for share in spared)} of {len(spared)} are of lower rank and cost "
            f"{min(spared):.0%} to {max(spared):.0%} of a whole layer of the same inputs; {_streams_text(one, dense)}; "
            f"{one['flops left']:.0%} of all FLOPs left, {100 * one['accuracy']:.1f} % before fine-tuning"
        )
        yield claim, measured, holds(same and max(spared) < 1)
    yield _filters_claim(found)


def _filters_claim(found: Found) -> Claim:
    """Filter pruning takes filters of these layers only with the stream."""
    told, right = [], True
    for name in FILTERS:
        one, narrower = found[name], found[name]["stream"] != found["dense"]["stream"]
        spared = [ours / plain for ours, plain in zip(one["flops"], _at_full_rank(one, found["dense"]), strict=True)]
        right &= narrower == (min(spared) < 1)
        told.append(f"`{name}`: {min(spared):.0%} to {max(spared):.0%} of it, {_streams_text(one, found['dense'])}")
    return "Plain filter pruning cannot, without narrowing the stream", "; ".join(told), holds(right)


def _at_full_rank(one: Found, dense: Found) -> list[float]:
    """FLOPs of the dense layers if they read as many channels as these do."""
    return [n * now / then for n, now, then in zip(dense["flops"], one["inputs"], dense["inputs"], strict=True)]


def _streams_text(one: Found, dense: Found) -> str:
    if one["stream"] == dense["stream"]:
        return "streams as wide as before"
    widths = sorted(set(zip(dense["stream"], one["stream"], strict=True)))
    return "streams " + ", ".join(f"{before} -> {after}" for before, after in widths)


def draw_hinge(axes: Any, found: Found, _runs: Sequence[Row]) -> None:
    """FLOPs of every last convolution, and the width of the stream behind it."""
    places = np.arange(len(found["dense"]["flops"]))
    names = [name for name in found if isinstance(found[name], dict)]
    for key, axis, unit in (("flops", axes[0], 1e6), ("stream", axes[1], 1)):
        for number, name in enumerate(names):
            values = np.array(found[name][key]) / unit
            axis.bar(places + 0.16 * (number - len(names) / 2), values, 0.16, label=name)
        axis.set(xlabel="block", xticks=places)
    axes[0].set(ylabel="MFLOPs", title="last convolutions of blocks")
    axes[1].set(ylabel="channels", title="streams that they add to")
    axes[1].legend(fontsize="small")


MEASURED = {"ldrf": ldrf, "hinge": hinge}
CLAIMS = {"ldrf": ldrf_claims, "hinge": hinge_claims}
PICTURES = {"ldrf": draw_ldrf, "hinge": draw_hinge}

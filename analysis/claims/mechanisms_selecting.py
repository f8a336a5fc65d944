"""Fuzzy pruning and EPruner: how many units they find, layer by layer, in the pretrained weights."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from torch import Tensor

from autoprune.analysis.claims.mechanisms_common import HALF, UNIFORM, Claim, Found, build, by_rank, holds, rounded
from autoprune.analysis.claims.methods_cifar10 import Row
from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.graph import ChannelGraph, Floats
from autoprune.engine.keep import Keep
from autoprune.methods import Scores
from autoprune.recipe import Target
from autoprune.trial.shared import SharedState

# ---- fuzzy: which groups lose much -----------------------------------------------------------------------------------

#: Cuts of the pretrained weights: hyper-parameters and the FLOPs that are left.
CUTS: Mapping[str, tuple[Mapping[str, float], float]] = {
    "defaults": ({}, 0.5),
    "defaults, 90% of the FLOPs": ({}, 0.9),
    "alpha_important 0.25": ({"alpha_important": 0.25}, 0.5),
    "alpha_important 0.95": ({"alpha_important": 0.95}, 0.5),
}
#: What may be meant by skewed, of scores x as multiples of their group's mean.
SHAPES = ("skewness", "spread", "low")


def fuzzy(shared: SharedState, _images: int) -> Found:
    """Shape of every group's scores and the share of it that goes: by alpha-cuts and by uniform allocation."""
    context = shared.context(shared.model, 0)
    scores = build("fuzzy").score(context)
    found: Found = {"groups": list(scores), "shapes": shapes(scores), "cuts": {}}
    found["uniform"] = gone(shared.graph, allocate(shared.graph, scores, HALF, UNIFORM), scores)
    for name, (params, left) in CUTS.items():
        method = build("fuzzy", **params)
        selection = method.select(context, scores, Target(flops=left), UNIFORM)
        found["cuts"][name] = {"gone": gone(shared.graph, selection.keep, scores), **selection.notes}
    plain: Found = rounded(found)
    return plain


def shapes(scores: Scores) -> dict[str, list[float]]:
    """Per group: Fisher's skewness, standard deviation, share of units below 0.8, the middle of the default corners."""
    looks = (_skewness, np.std, lambda x: np.mean(x < 0.8))
    return {name: [float(look(x)) for x in scores.values()] for name, look in zip(SHAPES, looks, strict=True)}


def _skewness(x: Floats) -> float:
    """The third moment over that of the standard deviation; 0 where all are alike."""
    return float(((x - x.mean()) ** 3).mean() / max(float(x.std()) ** 3, 1e-30))


def gone(graph: ChannelGraph, keep: Keep, scores: Scores) -> list[float]:
    """The share of every group's units that goes."""
    widths = keep.widths(graph)
    return [1 - widths.get(group, len(x)) / len(x) for group, x in scores.items()]


def fuzzy_claims(found: Found) -> Iterator[Claim]:
    """By skewness, as the words are, and by the two that alpha-cuts look at; then what uniform allocation does."""
    for shape, words in (
        ("skewness", "more skewed (absolute value of Fisher's skewness)"),
        ("spread", "more spread (standard deviation over mean)"),
        ("low", "of more units below 0.8 of the mean"),
    ):
        rhos = {name: related(found["shapes"][shape], cut["gone"]) for name, cut in found["cuts"].items()}
        measured = "rank correlation " + ", ".join(f"{rho:+.2f} ({name})" for name, rho in rhos.items())
        verdict = by_rank(rhos["defaults"], len(found["groups"]))
        yield f"Fuzzy prunes more of groups whose scores are {words}", measured, verdict
    yield _ratio_claim(found)


def _ratio_claim(found: Found) -> Claim:
    ours, theirs = np.array(found["cuts"]["defaults"]["gone"]), np.array(found["uniform"])
    measured = f"{ours.min():.0%} to {ours.max():.0%} of a group, uniform allocation {theirs.min():.0%} to "
    measured += f"{theirs.max():.0%}; `fuzzy` took {found['cuts']['defaults']['adjusted_units']:.0f} units by score, "
    measured += "because the loosest cut left too much"
    return (
        "Fuzzy prunes different shares of groups, a fixed ratio does not",
        measured,
        holds(np.ptp(ours) > np.ptp(theirs)),
    )


def related(shape: Sequence[float], lost: Sequence[float]) -> float:
    """Spearman's rank correlation; of skewness the absolute value counts: a long tail on either side."""
    return float(spearmanr(np.abs(shape), lost).statistic)


def draw_fuzzy(axes: Any, found: Found, _runs: Sequence[Row]) -> None:
    """Share pruned over skewness and over spread."""
    for axis, shape in zip(axes, ("skewness", "spread"), strict=True):
        values = np.array(found["shapes"][shape])
        axis.plot(values, found["cuts"]["defaults"]["gone"], "o", label="fuzzy")
        axis.plot(values, found["uniform"], "x", label="uniform")
        axis.set(xlabel=f"{shape} of a group's scores", ylabel="share pruned", title=f"half of the FLOPs: {shape}")
        axis.legend()


# ---- EPruner: no data ------------------------------------------------------------------------------------------------


@dataclass
class Counter:
    """A `Context.batches` without images: it notes how many were asked for."""

    asked: int = 0

    def __call__(self, images: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Note the request and refuse it."""
        self.asked += images
        raise LookupError(f"{images} images were asked for")


def epruner(shared: SharedState, _images: int) -> Found:
    """Score, select and rebuild with a context that has no images to give."""
    counter, method = Counter(), build("epruner")
    context = replace(shared.context(shared.model, 0), batches=counter)
    began = time.perf_counter(), time.process_time()
    scores = method.score(context)
    selection = method.select(context, scores, HALF, UNIFORM)
    keep = selection.keep
    method.rebuild(context, keep)
    seconds = {"seconds": time.perf_counter() - began[0], "processor seconds": time.process_time() - began[1]}
    exemplars = {group: int((values >= 1).sum()) for group, values in scores.items()}
    widths = {group: keep.widths(shared.graph).get(group, len(values)) for group, values in scores.items()}
    sizes = {group: len(values) for group, values in scores.items()}
    counts = {"sizes": sizes, "exemplars at 0.75": exemplars, "kept": widths}
    found: Found = rounded({"images read": counter.asked, **seconds, **counts, **selection.notes})
    return found


def epruner_claims(found: Found) -> Iterator[Claim]:
    """On data, and on counts."""
    measured = (
        f"{found['images read']} images read by score, selection and cut; "
        f"{found['processor seconds']:.1f} s of processor time"
    )
    yield "EPruner needs no data to prune", measured, holds(found["images read"] == 0)
    sizes, kept = found["sizes"], found["kept"]
    shares = [kept[group] / sizes[group] for group in sizes]
    counts = ", ".join(f"{kept[group]}/{sizes[group]}" for group in sizes)
    alone = sum(count == 1 for count in found["exemplars at 0.75"].values())
    measured = (
        f"at b = {found['beta']:.3f}, half of the FLOPs: {counts}; at 0.75, the default of the authors' code, "
        f"{alone} of {len(sizes)} groups would keep a single filter"
    )
    yield "EPruner finds another share for each layer", measured, holds(float(np.std(shares)) > 0.1)


def draw_epruner(axes: Any, found: Found, _runs: Sequence[Row]) -> None:
    """Exemplars of every group, at half of the FLOPs and at the b of the authors' code."""
    groups = list(found["sizes"])
    titles = (("kept", f"half of the FLOPs: b = {found['beta']:.2f}"), ("exemplars at 0.75", "the authors' b = 0.75"))
    for axis, (key, title) in zip(axes, titles, strict=True):
        axis.barh(groups, [found["sizes"][group] for group in groups], color="0.85", label="filters")
        axis.barh(groups, [found[key][group] for group in groups], label="exemplars")
        axis.set(xlabel="units", title=f"EPruner, {title}")
        axis.invert_yaxis()
        axis.tick_params(axis="y", labelsize="small")
        axis.legend()


MEASURED = {"fuzzy": fuzzy, "epruner": epruner}
CLAIMS = {"fuzzy": fuzzy_claims, "epruner": epruner_claims}
PICTURES = {"fuzzy": draw_fuzzy, "epruner": draw_epruner}

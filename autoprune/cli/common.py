"""One trial of a study and a model by its name, as several commands need them."""

from __future__ import annotations

import contextlib
import gc
from argparse import Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from autoprune.errors import InputError
from autoprune.study.folder import Study
from autoprune.study.front_timings import slower_than_hoped, time_in_words
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Outcome

if TYPE_CHECKING:
    from torch import nn

    from autoprune.engine.tracing.trace import Inputs


#: Outputs of a classifier, if nothing else is said.
CLASSES = 1000


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Python's search for cyclic garbage stands still in the block.

    For commands that read a study, print and end: the search would go through all that was read a dozen times and find
    nothing, which takes 0.9 of the 5.4 seconds of a report of 5,000 trials.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


#: Our networks whose outputs are no classes of an image, and what they are.
OWN = {"unet": "segmentation", "small_retinanet": "detection"}


def find_outcome(study: Study, trial: int) -> Outcome:
    """The outcome of one trial; raises `InputError` if it has none."""
    for outcome in study.outcomes:
        if outcome.id == trial:
            return outcome
    ids = sorted(outcome.id for outcome in study.outcomes)
    allowed = ", ".join(map(str, ids)) if len(ids) <= 20 else f"{ids[0]} to {ids[-1]}"
    allowed = allowed or "none, as no trial has ended yet"
    raise InputError(f"there is no ended trial {trial}", where=str(study.folder.path), allowed=allowed)


def member_facts(outcome: Outcome, metric: MetricSpec) -> dict[str, Any]:
    """One trial in plain data: id, method, the metric by its name, ratios; the latency if it was measured."""
    ratios = {name: getattr(outcome, name) for name in ("flops_ratio", "params_ratio", "activations_ratio")}
    times = {"latency_ratio": outcome.latency_ratio, "latency_ms": outcome.latency_ms}
    ratios |= {} if outcome.latency_ms is None else times
    return {"id": outcome.id, "method": outcome.recipe.method.name, metric.name: outcome.metric, **ratios}


def slower_line(model: Outcome) -> str | None:
    """That a model may be no faster than the dense one, where FLOPs fell and its time was measured."""
    if not slower_than_hoped([model]):
        return None
    return f"trial {model.id} may be no faster than the dense model: it takes {time_in_words(model)}"


def model_by_name(args: Namespace) -> tuple[nn.Module, Inputs]:
    """The model that MODEL names, in eval mode, and example inputs: one image, in a list for a detector."""
    import torch

    from autoprune.errors import ModelError
    from autoprune.tasks import zoo
    from autoprune.tasks.own_network import as_network
    from autoprune.tasks.user_code import call, load_function

    image = torch.randn(1, *args.input, generator=torch.Generator().manual_seed(0))
    if ":" not in args.model:
        if (dense := _dense_prediction(args.model, args.input, args.classes)) is not None:
            return dense.eval(), image if _is_known(args.model, "segmentation") else ([image[0].sigmoid()],)
        return zoo.build(args.model, args.input, args.classes or CLASSES, {}, "MODEL").eval(), image
    factory = load_function(args.model, "MODEL")
    return as_network(call(args.model, factory, {}, where="MODEL", kind=ModelError), args.model), image


def _dense_prediction(name: str, shape: tuple[int, ...], classes: int | None) -> nn.Module | None:
    """Our own or torchvision's network for segmentation or detection of that name, if there is one.

    Detectors do not resize the image here, and report every box: without weights they would find none.
    """
    from torchvision import models

    if name in OWN:
        return _own_network(name, shape, classes)
    options: dict[str, Any] = {"weights": None, "weights_backbone": None}
    options |= {} if classes is None else {"num_classes": classes}
    if _is_known(name, "detection"):
        options["box_score_thresh" if "rcnn" in name else "score_thresh"] = 0.0
        options |= {} if "ssd" in name else {"min_size": min(shape[1:]), "max_size": max(shape[1:])}
    elif not _is_known(name, "segmentation"):
        return None
    model: nn.Module = models.get_model(name.removeprefix("torchvision/"), **options)
    return model


def _own_network(name: str, shape: tuple[int, ...], classes: int | None) -> nn.Module:
    """`unet` or `small_retinanet`, by default with as many classes as torchvision's networks of its kind."""
    from autoprune.tasks.detection import networks as detection
    from autoprune.tasks.segmentation import networks as segmentation

    if OWN[name] == "detection":
        return detection.build_network(name, shape, classes or 91, {"score_thresh": 0.0}, "MODEL")
    return segmentation.build_network(name, shape, classes or 21, {}, "MODEL")


def _is_known(name: str, kind: str) -> bool:
    from torchvision import models

    return OWN.get(name) == kind or name.removeprefix("torchvision/") in models.list_models(getattr(models, kind))

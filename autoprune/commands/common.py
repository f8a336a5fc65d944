"""What several commands need: one trial of a study, a model by its name."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from autoprune.errors import InputError
from autoprune.results import Outcome, Study

if TYPE_CHECKING:
    import torch
    from torch import nn


def find_outcome(study: Study, trial: int) -> Outcome:
    """The outcome of one trial; raises `InputError` if it has none."""
    for outcome in study.outcomes:
        if outcome.id == trial:
            return outcome
    ids = sorted(outcome.id for outcome in study.outcomes)
    allowed = ", ".join(map(str, ids)) if len(ids) <= 20 else f"{ids[0]} to {ids[-1]}"
    allowed = allowed or "none, as no trial has ended yet"
    raise InputError(f"there is no ended trial {trial}", where=str(study.folder.path), allowed=allowed)


def member_facts(outcome: Outcome) -> dict[str, Any]:
    """One trial in plain data: id, method, accuracy, ratios."""
    ratios = {name: getattr(outcome, name) for name in ("flops_ratio", "params_ratio", "activations_ratio")}
    return {"id": outcome.id, "method": outcome.recipe.method.name, "accuracy": outcome.accuracy, **ratios}


def model_by_name(args: Namespace) -> tuple[nn.Module, torch.Tensor]:
    """The model that MODEL names, in eval mode, and an example input."""
    import torch

    from autoprune.errors import ModelError
    from autoprune.tasks import zoo
    from autoprune.tasks.data import load_function

    if ":" in args.model:
        try:
            model = load_function(args.model, "MODEL")()
        except TypeError as error:
            raise ModelError(f"cannot be called without arguments: {error}", where=args.model) from error
    else:
        model = zoo.build(args.model, args.input, args.classes, {}, "MODEL")
    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"returns a {type(model).__name__}", where=args.model, allowed="a torch.nn.Module")
    stream = torch.Generator().manual_seed(0)
    return model.eval(), torch.randn(1, *args.input, generator=stream)

"""Model + example input -> ChannelGraph: one forward pass on meta tensors with integer labels beside the data.

Every entry of every parameter dimension gets a label; labels go through the operations as the data do (`engine/rules`);
labels that meet are tied; connected components are the units. A second pass on a copy with one unit per group cut (the
probe) finds what the first cannot see, sizes and indices written in the model's code, and freezes the culprits.
"""

from __future__ import annotations

import copy

from torch import nn

from autoprune.engine.graph import ChannelGraph, InputSpec
from autoprune.engine.surgery.refusals import check_can_be_cut
from autoprune.engine.tracing.forward import Inputs, input_specs, meta_copy, run_labelled
from autoprune.engine.tracing.labelled_run import GroupingMode
from autoprune.engine.tracing.probe import Probe, probed_graph
from autoprune.errors import ModelError, check_name, first_line

GROUPED = ("offsets", "groups")


def trace(model: nn.Module, inputs: Inputs, *, grouped: str = "offsets") -> ChannelGraph:
    """The channel graph of a model, in eval mode, for inputs of these shapes; the model is not touched.

    A model whose forward pass depends on its data (detection: boxes are counted and sorted) cannot run on meta tensors;
    it is run with its weights, on random inputs, and what depends on the data costs what it cost there.

    Args:
        model: any module; runs on meta tensors, so no memory or time is spent on data.
        inputs: example tensor; or arguments in the order of `forward`, tensors or lists of tensors; or tensors by
            keyword.
        grouped: what grouped convolutions and norms lose: `offsets`, the same in every group, or whole `groups`.

    Raises:
        InputError: unknown `grouped`.
        ModelError: the forward pass fails on these inputs, or the model cannot be cut at all, a script for example.
    """
    check_can_be_cut(model)
    check_name(grouped, GROUPED, kind="grouping mode", where="grouped")
    mode = GroupingMode(whole_groups=grouped == "groups")
    return probed_graph(_dense_probe(model, tuple(input_specs(inputs)), mode))


def _dense_probe(model: nn.Module, specs: tuple[InputSpec, ...], mode: GroupingMode) -> Probe:
    on_meta = meta_copy(model)
    try:
        return Probe(on_meta, run_labelled(on_meta, specs, mode))
    except ModelError:
        raise
    except Exception as failed:  # noqa: BLE001 - whatever stops it, running with data decides
        real = copy.deepcopy(model).eval().requires_grad_(False)
        try:
            return Probe(real, run_labelled(real, specs, mode))
        except Exception as error:  # noqa: BLE001 - as many ways to fail as there are models
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ModelError(f"the forward pass fails: {reason}", where=type(model).__name__) from failed

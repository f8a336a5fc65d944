"""Model + example input -> ChannelGraph: one forward pass on meta tensors with integer labels beside the data.

Every entry of every parameter dimension gets a label; labels go through the operations as the data do (`engine/rules`);
labels that meet are tied; connected components are the units. A second pass on a copy with one unit per group cut (the
probe) finds what the first cannot see, sizes and indices written in the model's code, and freezes the culprits.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from autoprune.engine.graph import ChannelGraph, InputSpec
from autoprune.engine.labels.evidence import CallKey
from autoprune.engine.surgery.copying import copy_module
from autoprune.engine.surgery.refusals import check_can_be_cut
from autoprune.engine.tracing.build_graph import build_graph
from autoprune.engine.tracing.components import components
from autoprune.engine.tracing.culprits import probed_graph
from autoprune.engine.tracing.data_values import DataValues
from autoprune.engine.tracing.forward import OUTPUT, BrokenPassError, Inputs, input_specs, meta_copy, run_labelled
from autoprune.engine.tracing.labelled_run import GroupingMode, LabelledRun
from autoprune.engine.tracing.probe import Probe
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
    held = _data_held(on_meta)
    try:
        dense = _run_by_rows_where_needed(on_meta, specs, mode)
        _check_weights_stay(held, _data_held(on_meta))
        return Probe(on_meta, dense)
    except ModelError:
        raise
    except Exception as failed:  # noqa: BLE001 - whatever stops it, running with data decides
        real = copy_module(model, {}).eval().requires_grad_(False)
        try:
            return _probe_with_data(model, real, specs, mode)
        except Exception as broken:  # noqa: BLE001 - as many ways to fail as there are models
            error = broken.error if isinstance(broken, BrokenPassError) else broken
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ModelError(f"the forward pass fails: {reason}", where=type(model).__name__) from failed


def _probe_with_data(model: nn.Module, real: nn.Module, specs: tuple[InputSpec, ...], mode: GroupingMode) -> Probe:
    """A probe of a model that reads numbers off its data: once with data, then on meta tensors with these numbers."""
    values = DataValues()
    run = run_labelled(real, specs, replace(mode, values=values))
    values.complete = True
    on_meta = meta_copy(model)
    try:
        return Probe(on_meta, _run_by_rows_where_needed(on_meta, specs, run.mode))
    except BrokenPassError:  # it reads what no operation returns, `tolist` for instance
        return Probe(real, _run_by_rows_where_needed(real, specs, run.mode))


def _data_held(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Parameter -> where its data are, and how often they have been written to."""
    return {name: (p.untyped_storage()._cdata, p._version) for name, p in model.named_parameters()}


def _check_weights_stay(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> None:
    """Refuse a forward pass that writes its own weights: it would write those of the dense sizes into a cut model."""
    written = [name for name, data in before.items() if after.get(name) != data]
    if written:
        raise ModelError(
            f"its forward pass writes into its own weight {written[0]!r}, which a cut cannot follow",
            where="model",
            allowed="a model that only reads its weights: compute this one once, before tracing",
        )


def _run_by_rows_where_needed(model: nn.Module, specs: tuple[InputSpec, ...], mode: GroupingMode) -> LabelledRun:
    """The dense model's run; what was split as for heads is split as for maps instead, where more can be pruned so."""
    run = run_labelled(model, specs, mode)
    calls = _calls_split_wrongly(run) if run.evidence.split_calls else frozenset()
    if not calls:
        return run
    other = run_labelled(model, specs, replace(mode, by_row=calls))
    return min(run, other, key=_entries_and_units_held)


def _calls_split_wrongly(run: LabelledRun) -> frozenset[CallKey]:
    """Calls that split a dimension into rows and offsets, of which the offsets must stay or are tied to each other."""
    frozen = [labels for labels, reason in run.ties.freezes if not reason.startswith(OUTPUT)]
    stuck = np.zeros(run.label_count, dtype=bool)
    stuck[np.concatenate([*frozen, np.zeros(0, np.int64)])] = True
    component = components(run)
    stuck = np.bincount(component, stuck) > 0
    return frozenset(
        key
        for key, rows in run.evidence.split_calls.items()
        if stuck[component[rows]].any() or len(np.unique(component[rows])) < rows.shape[-1]
    )


def _entries_and_units_held(run: LabelledRun) -> tuple[int, int]:
    """How many entries of tensors must stay, and how few units there are to prune."""
    graph = build_graph(run, {})
    units, _, _ = graph.entries
    return int((graph.column_of_unit[units] < 0).sum()), -int(graph.sizes.sum())

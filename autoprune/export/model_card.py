"""The model card of an exported model: what it is, what it costs, how to load it, what to think of its numbers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from autoprune.export.card_examples import onnx_example, program_example
from autoprune.export.layout import ARTEFACT, INT8, ONNX, PROGRAM
from autoprune.study.front_timings import is_as_slow
from autoprune.study.metric import MetricSpec, read_metric

#: From this loss on, as a share of the metric's range, a quantised file is said to be worse.
NOTABLE = 0.01


def model_card(record: Mapping[str, Any]) -> str:
    """Markdown for the record that `export` writes (`export.json`); parts that the record lacks are left out."""
    parts = [
        _title_part(record),
        _numbers_part(record),
        _loading_part(record),
        _input_part(record),
        _widths_part(record),
        _recipe_part(record),
        _replay_part(record),
    ]
    parts += [_seeds_part(record), _trust_part(record), _versions_part(record)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title_part(record: Mapping[str, Any]) -> str:
    model = _model_name(record)
    outcome = record.get("outcome") or {}
    ratio = outcome.get("flops_ratio")
    share = f" to {ratio:.1%} of its FLOPs" if ratio is not None else ""
    method = f" with `{outcome['recipe']['method']['name']}`" if outcome else ""
    return (
        f"# {model}, pruned\n\n{model} pruned{share}{method} by autoprune. Whole channels were removed, so the model\n"
        "is a smaller dense network: it needs no sparse kernels and no masks."
    )


def _model_name(record: Mapping[str, Any]) -> str:
    model = (record.get("task") or {}).get("model") or {}
    return str(model.get("name") or model.get("factory") or "A model")


def _numbers_part(record: Mapping[str, Any]) -> str:
    dense, outcome, metric = record.get("dense") or {}, record.get("outcome") or {}, _metric(record)
    rows = [
        _metric_row(metric, "validation", dense.get(metric.name), outcome.get(metric.name)),
        _metric_row(metric, "test", None, outcome.get(f"test_{metric.name}")),
        _cost_row("FLOPs per image", dense.get("flops"), outcome.get("flops_ratio")),
        _cost_row("parameters", dense.get("params"), outcome.get("params_ratio")),
        _cost_row("activations", dense.get("activations"), outcome.get("activations_ratio")),
        _time_row(record.get("timed") or {}, outcome.get("latency_ms"), outcome.get("latency_ratio")),
    ]
    if not any(rows):
        return ""
    head = "| | dense | pruned |\n|---|---:|---:|\n"
    note = "\n\nOne multiply-add is counted as 2 FLOPs; papers that count multiply-adds give half."
    return head + "\n".join(row for row in rows if row) + note + _slow_part(outcome)


def _slow_part(outcome: Mapping[str, Any]) -> str:
    """A warning where FLOPs fell and time did not, as far as it was measured."""
    ratio, flops = outcome.get("latency_ratio"), outcome.get("flops_ratio")
    if not is_as_slow(flops, ratio, outcome.get("latency_high")):
        return ""
    return (
        f"\n\n**It may be no faster than the dense model:** its FLOPs fell to {flops:.1%}, and its time was measured as"
        f" {ratio:.2f} of the dense model's. Widths that are fast on a device come from `round_to: auto`."
    )


def _metric(record: Mapping[str, Any]) -> MetricSpec:
    """What the model is judged by; accuracy in the records that do not say."""
    return read_metric(record.get("metric") or {}, "export.json: metric")


def _metric_row(metric: MetricSpec, split: str, dense: float | None, pruned: float | None) -> str:
    if pruned is None:
        return ""
    better = ", smaller is better" if metric.direction == "minimize" else ""
    before = "" if dense is None else metric.shown(dense)
    return f"| {metric.name} ({split}{better}) | {before} | {metric.shown(pruned)} |"


def _cost_row(label: str, dense: float | None, ratio: float | None) -> str:
    if dense is None or ratio is None:
        return ""
    return f"| {label} | {dense:,.0f} | {dense * ratio:,.0f} ({ratio:.1%}) |"


def _time_row(timed: Mapping[str, Any], ms: float | None, ratio: float | None) -> str:
    """Both were measured in turns, so the dense model's time follows from the ratio."""
    if not timed or ms is None or ratio is None:
        return ""
    label = f"ms of a forward pass, {timed['how']}"
    return f"| {label} | {ms / ratio:,.2f} | {ms:,.2f} ({ratio:.1%}) |"


def _loading_part(record: Mapping[str, Any]) -> str:
    missing = "".join(f"\n{name} was not written: {reason}.\n" for name, reason in _not_written(record).items())
    return f"""## Load it

{_compared(record)}

{_formats_table(record)}
{missing}
The artefact (safetensors and JSON, nothing pickled) needs the code that builds the dense architecture:

```python
import autoprune as ap
{_factory_lines(record)}
```{_onnx_part(record)}{_program_part(record)}"""


def _formats_table(record: Mapping[str, Any]) -> str:
    """A row per format: its files, how far it is from the model, and what it was scored."""
    errors, scores, metric = record["relative_error"], record.get("scores") or {}, _metric(record)
    head = ["", "files", "difference", *([metric.name] if scores else [])]
    rows = [
        [name, ", ".join(record["files"][name]), f"{error:.1e}", *([metric.shown(scores[name])] if scores else [])]
        for name, error in errors.items()
    ]
    lines = [f"| {' | '.join(row)} |" for row in [head, *rows]]
    return "\n".join([lines[0], f"|---|---|{'---:|' * (len(head) - 2)}", *lines[1:]])


def _not_written(record: Mapping[str, Any]) -> Mapping[str, str]:
    """Formats that the model could not be written in, and why."""
    return record.get("not_written") or {}


def _compared(record: Mapping[str, Any]) -> str:
    how = """Each file was loaded again and run on batches of 1 and 3 images before this card was written. The
difference is the largest one from the model in PyTorch, relative to its largest output."""
    if record.get("one_by_one"):
        how = """Each file was loaded again and run on three images, one of another size, before this card was written.
The difference is the largest one of its detections from the model's in PyTorch: of scores, and of corners as shares of
the image's longer side."""
    scored = "Then each was scored on the validation split, as the last column says." if record.get("scores") else ""
    eight = "int8 computes in eight bits, with ranges that training images have shown." if _has(record, INT8) else ""
    return "\n".join(part for part in (how, scored, eight, int8_loss(record)) if part)


def int8_loss(record: Mapping[str, Any]) -> str:
    """That the quantised file scores notably worse than the others, in one sentence; empty if it does not."""
    scores, metric = record.get("scores") or {}, _metric(record)
    if INT8 not in scores or metric.height(scores[ARTEFACT]) - metric.height(scores[INT8]) < NOTABLE:
        return ""
    lost = metric.shown_difference(scores[INT8] - scores[ARTEFACT])
    return f"int8 is {lost} off the others: a model that was pruned less may be the better one in eight bits."


def _has(record: Mapping[str, Any], name: str) -> bool:
    return name in record["files"]


def _onnx_part(record: Mapping[str, Any]) -> str:
    if not _has(record, ONNX):
        return ""
    also = f"; `{record['files'][INT8][0]}` runs in the same way" if _has(record, INT8) else ""
    return f"""

ONNX needs onnxruntime and NumPy{also}:

```python
{onnx_example(record)}```"""


def _program_part(record: Mapping[str, Any]) -> str:
    if not _has(record, PROGRAM):
        return ""
    return f"""

The exported program needs PyTorch only:

```python
{program_example(record)}```"""


def _factory_lines(record: Mapping[str, Any]) -> str:
    model = (record.get("task") or {}).get("model") or {}
    factory = str(model.get("factory") or "")
    if ":" in factory:
        module, function = factory.split(":", 1)
        arguments = ", ".join(f"{key}={value!r}" for key, value in (model.get("arguments") or {}).items())
        build = f"lambda: {function}({arguments})" if arguments else function
        found = f"from {module} import {function}  # where Python finds the module: here, or PYTHONPATH"
        return f'{found}\nmodel = ap.load(".", model={build})'
    if record.get("task"):
        lines = ["import json", "from autoprune.tasks import load_task"]
        lines += ['task = load_task(json.load(open("export.json"))["task"])']
        return "\n".join([*lines, 'model = ap.load(".", model=task.build)'])
    return 'model = ap.load(".", model=factory)  # factory() builds the dense architecture'


def _image_shape(record: Mapping[str, Any]) -> str:
    if record.get("one_by_one"):
        return f"{record['input'][0]}, height, width"
    return ", ".join(str(size) for size in record["input"])


def _input_part(record: Mapping[str, Any]) -> str:
    pixels = record.get("pixels") or {}
    scale = ""
    if "mean" in pixels:
        mean, std = (", ".join(f"{value:g}" for value in pixels[name]) for name in ("mean", "std"))
        scale = f" From stored pixels: divide by {pixels['scale']:g}, subtract {mean}, divide by {std} (per channel)."
    shape = f"float32, ({_image_shape(record)}) per image, any number of images, normalised as in training."
    if record.get("one_by_one"):
        shape = f"float32, ({_image_shape(record)}), one image of any size, from 0 to 1; the model normalises it."
    return f"## Input\n\n{shape}{scale}"


def _widths_part(record: Mapping[str, Any]) -> str:
    widths = (record.get("outcome") or {}).get("widths") or {}
    if not widths:
        return ""
    full = {group["id"]: group["size"] for group in record.get("groups") or []}
    rows = "\n".join(f"| `{group}` | {full.get(group, '')} | {width} |" for group, width in widths.items())
    return f"## Widths\n\nChannels per coupled group.\n\n| group | dense | kept |\n|---|---:|---:|\n{rows}"


def _recipe_part(record: Mapping[str, Any]) -> str:
    recipe = (record.get("outcome") or {}).get("recipe")
    if not recipe:
        return ""
    plain = json.dumps(recipe, indent=2)
    return f"## Recipe\n\nEverything that decided this model, seed included.\n\n```json\n{plain}\n```"


def _replay_part(record: Mapping[str, Any]) -> str:
    study, outcome = record.get("study"), record.get("outcome") or {}
    if not study or "id" not in outcome:
        return ""
    trial = outcome["id"] if outcome.get("member") is None else outcome["member"]
    command = f"autoprune replay {shlex.quote(study)} --trial {trial}"
    return f"The whole trial runs again, and widths, costs and metric are compared:\n\n```sh\n{command}\n```"


def _seeds_part(record: Mapping[str, Any]) -> str:
    found, metric = record.get("finalists") or [], _metric(record)
    if not found:
        return ""
    head = "| | seeds | validation | test |\n|---|---:|---:|---:|\n"
    rows = "\n".join(
        f"| {row['method']} at {row['flops_ratio']:.1%} of the FLOPs | {row['seeds']} "
        f"| {_mean_and_std(row, 'validation', metric)} | {_mean_and_std(row, 'test', metric)} |"
        for row in found
    )
    return (
        "## Over several seeds\n\nThe recipe above and the search's dense control, trained as long with each seed: "
        f"mean and sample standard deviation of {metric.name}. The model here is the best on the validation split."
        f"\n\n{head}{rows}"
    )


def _mean_and_std(row: Mapping[str, Any], name: str, metric: MetricSpec) -> str:
    std = row[f"{name}_std"]
    return metric.shown(row[name]) + ("" if std is None else f" ± {metric.shown(std)}")


def _trust_part(record: Mapping[str, Any]) -> str:
    name = _metric(record).name
    tested = (record.get("outcome") or {}).get(f"test_{name}") is not None
    advice = (
        f"The {name} on the test split was read once, after training, and chose nothing: quote that one. "
        if tested
        else "Score the model on images that took no part in the search before you quote a number. "
    )
    splits = ((record.get("task") or {}).get("data") or {}).get("splits") or {}
    named = "\n".join(f"- {role}: `{split}`" for role, split in splits.items())
    return (
        f"## What the {name} may be trusted for\n\n"
        f"The {name} on the validation split is of the images that also chose this model among the others of its "
        f"search: it is a little too good. {advice}"
        "The weights were fitted on the training split only." + (f"\n\nSplits:\n\n{named}" if named else "")
    )


def _versions_part(record: Mapping[str, Any]) -> str:
    return "Made with " + ", ".join(f"{name} {number}" for name, number in record["versions"].items()) + "."

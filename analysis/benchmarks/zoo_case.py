"""One model through everything that pruning promises, step by step; a step that fails says why, the next one runs."""

from __future__ import annotations

import resource
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from autoprune.analysis.benchmarks.zoo_checks import (
    CheckError,
    Numbers,
    agreement,
    difference,
    finite,
    gradients,
    half,
    in_double,
    random_keep,
    reach,
    run,
    untrue,
)
from autoprune.analysis.benchmarks.zoo_exports import as_dense, onnx_error, program_error
from autoprune.analysis.benchmarks.zoo_models import Entry
from autoprune.analysis.benchmarks.zoo_weights import randomise
from autoprune.engine.allocation import allocate
from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.engine.surgery import artifact
from autoprune.engine.surgery.masking import mask
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.errors import first_line
from autoprune.export import formats
from autoprune.recipe import Target

#: Largest difference allowed between the masked and the cut model, relative to the largest output.
TOLERANCE = 1e-4

#: Characters of a reason in a row.
REASON_LENGTH = 240

#: Least difference between the dense and the cut model: below it, equality would say nothing.
VISIBLE = 1e-2

Row = dict[str, Any]


class StepTimeoutError(Exception):
    """A step ran longer than it may."""


@dataclass
class Case:
    """State that the steps hand on; models are dropped early, since three of the biggest fill the memory."""

    entry: Entry
    seed: int
    folder: Path
    inputs: tuple[Any, ...] = ()
    dense: nn.Module | None = None
    graph: ChannelGraph | None = None
    half: Keep = field(default_factory=Keep.all)
    cut: nn.Module | None = None


# ---- steps -----------------------------------------------------------------------------------------------------------


def build(case: Case) -> Numbers:
    """The dense model with random weights, in eval mode."""
    case.inputs = case.entry.inputs()
    case.dense = randomise(case.entry.build(), case.inputs, case.seed)
    return {"params": sum(parameter.numel() for parameter in case.dense.parameters())}


def traced(case: Case) -> Numbers:
    """Trace the model; report the share of the FLOPs that is out of reach, with reasons."""
    began = time.perf_counter()
    case.graph = trace(case.dense, case.inputs)
    seconds = time.perf_counter() - began
    case.half = half(case.graph, case.seed)
    return {"trace_seconds": round(seconds, 3), **reach(case.graph, case.half)}


def cut(case: Case) -> Numbers:
    """Half of the channels of every prunable group go; the cut model runs."""
    if not case.graph.prunable:
        raise CheckError("nothing can be pruned")
    began = time.perf_counter()
    case.cut = prune(case.dense, case.graph, case.half, fold=False)
    seconds = time.perf_counter() - began
    finite(run(case.cut, case.inputs))
    return {"cut_seconds": round(seconds, 3)}


def equal(case: Case) -> Numbers:
    """The cut model computes what the masked one computes, and not what the dense one computes."""
    found = run(case.cut, case.inputs)
    numbers = {"changed": difference(run(case.dense, case.inputs), found)}
    numbers["difference"] = difference(run(mask(case.dense, case.graph, case.half), case.inputs), found)
    if not numbers["difference"] <= TOLERANCE:
        numbers["difference64"] = _difference_in_double(case, numbers)
    if not min(numbers["difference"], numbers.get("difference64", float("inf"))) <= TOLERANCE:
        both = f"{numbers['difference']:.1e}, in float64 by {numbers['difference64']:.1e}"
        raise CheckError(f"masked and cut differ by {both}", **numbers)
    if not numbers["changed"] > VISIBLE:
        raise CheckError(f"vacuous: dense and cut differ by {numbers['changed']:.1e} only", **numbers)
    return numbers


def costs(case: Case) -> Numbers:
    """`cost` agrees with torch's count on the rebuilt model, for half of every group and for random shares."""
    ragged = random_keep(case.graph, case.seed + 1)
    found = {"half": agreement(case.graph, case.half, case.cut, case.inputs)}
    rebuilt = prune(case.dense, case.graph, ragged, fold=False)
    return {**found, "random": agreement(case.graph, ragged, rebuilt, case.inputs)}


def backward(case: Case) -> Numbers:
    """Gradients in train mode, with batch statistics; in eval mode only where the dense model does not train either."""
    inputs = (*case.inputs, *case.entry.targets())
    try:
        return {"mode": "train", **gradients(case.cut.train(), inputs)}
    except _BROKEN as error:
        why = first_line(error, REASON_LENGTH)
    finally:
        case.cut.eval()
    if _runs_through(case.dense.train(), inputs):
        raise CheckError(f"the dense model runs in train mode, the cut one does not: {why}")
    return {"mode": "eval", "not_train": why, **gradients(case.cut, case.inputs)}


#: What a forward pass raises for shapes that do not fit.
_BROKEN = (RuntimeError, ValueError, AssertionError, IndexError, TypeError)


def _runs_through(model: nn.Module, inputs: tuple[Any, ...]) -> bool:
    try:
        run(model, inputs)
    except _BROKEN:
        return False
    return True


def attributes(case: Case) -> Numbers:
    """The cut model can be printed, and its modules state their true sizes."""
    case.dense = None  # nothing needs it from here on
    text, wrong = repr(case.cut), untrue(case.cut)
    if wrong:
        raise CheckError(f"{len(wrong)} sizes are not so, first: {wrong[0]}")
    return {"printed": len(text)}


def again(case: Case) -> Numbers:
    """The cut model is traced and pruned like any other: its groups are as wide as was kept; one more unit goes."""
    graph = trace(case.cut, case.inputs)
    kept = Counter(width for width in case.half.widths(case.graph).values() if width > 1)
    found = Counter(group.size for group in graph.prunable if group.size > 1)
    if kept - found:
        frozen = "; ".join(reason for reason, _ in reach(graph, Keep.all())["reasons"])
        raise CheckError(f"no longer prunable, size: groups = {dict(kept - found)}; frozen now: {frozen}")
    less = Keep.of({group.id: range(1, group.size) for group in graph.prunable if group.size > 1})
    finite(run(prune(case.cut, graph, less, fold=False), case.inputs))
    return {"groups": len(graph.prunable), "new": {str(size): n for size, n in (found - kept).items()}}


def stored(case: Case) -> Numbers:
    """Saved and loaded into the factory's model, the cut model computes the same to the bit."""
    artifact.save(case.folder / "artefact", case.cut, case.graph, case.half)
    loaded = artifact.load(case.folder / "artefact", case.entry.build)
    found = difference(run(case.cut, case.inputs), run(loaded, case.inputs))
    if found != 0:
        raise CheckError(f"the loaded model differs by {found:.1e}", difference=found)
    return {"mebibytes": round((case.folder / "artefact" / artifact.WEIGHTS).stat().st_size / 2**20, 1)}


def exported(case: Case) -> Numbers:
    """torch.export and ONNX through `autoprune.export`, which runs every file on two batch sizes."""
    case.cut = None
    if not isinstance(case.inputs[0], Tensor):
        raise CheckError("autoprune.export takes models of one tensor of images")
    formats.export(case.folder / "artefact", case.entry.build, case.inputs[:1], case.folder / "export", info={})
    return {"relative_error": formats.read_record(case.folder / "export")["relative_error"]}


def halved(case: Case) -> Numbers:
    """The target that users set most, half of the FLOPs, can be met."""
    scores = {group.id: np.random.default_rng(case.seed).random(group.size) for group in case.graph.prunable}
    keep = allocate.allocate(case.graph, scores, Target(flops=0.5))
    ratio = cost(case.graph, keep).ratios(cost(case.graph, Keep.all()))["flops"]
    if abs(ratio - 0.5) > allocate.TOLERANCE:
        raise CheckError(f"{ratio:.3f} of the FLOPs are left", ratio=ratio)
    return {"ratio": ratio}


def program(case: Case) -> Numbers:
    """torch.export takes the cut model, if it takes the dense one, and computes the same."""
    return as_dense(lambda model: program_error(model, case.inputs), case.cut, case.entry)


def onnx(case: Case) -> Numbers:
    """So does ONNX, run by onnxruntime."""
    return as_dense(lambda model: onnx_error(model, case.inputs), case.cut, case.entry)


@dataclass(frozen=True)
class Step:
    """A check: its name in the row, what must have passed before it, whether a quick look runs it."""

    name: str
    run: Callable[[Case], Numbers]
    needs: tuple[str, ...] = ()
    quick: bool = True


STEPS = (
    Step("build", build),
    Step("trace", traced, ("build",)),
    Step("cut", cut, ("trace",)),
    Step("equal", equal, ("cut",)),
    Step("cost", costs, ("cut",)),
    Step("backward", backward, ("cut",)),
    Step("attributes", attributes, ("cut",)),
    Step("again", again, ("cut",)),
    Step("artefact", stored, ("cut",)),
    Step("onnx", exported, ("artefact",), quick=False),
)

#: Of models of any inputs and outputs, which `autoprune.export` does not take.
WILD_STEPS = (
    *STEPS[:-1],
    Step("target", halved, ("trace",)),
    Step("program", program, ("cut",), quick=False),
    Step("onnx", onnx, ("program",), quick=False),
)


def steps_of(library: str) -> tuple[Step, ...]:
    """The checks of the models of one library."""
    return WILD_STEPS if library == "wild" else STEPS


# ---- one model -------------------------------------------------------------------------------------------------------


def measure(entry: Entry, *, quick: bool, seconds: int, seed: int, report: Callable[[Row], None]) -> None:
    """Run the steps; `report` gets the row before and after each of them, so that a crash leaves what was found.

    A row that is not final has the key `running`, the name of the step under way.
    """
    case, began = Case(entry, seed, Path(tempfile.mkdtemp(prefix="autoprune-zoo-"))), time.perf_counter()
    row: Row = {**described(entry), "seed": seed, "quick": quick, "checks": {}}
    try:
        for step in steps_of(entry.library):
            if step.quick or not quick:
                report({**row, "running": step.name})
                row["checks"][step.name] = attempt(step, case, row["checks"], seconds)
                row["seconds"] = round(time.perf_counter() - began, 2)
                row["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    finally:
        shutil.rmtree(case.folder, ignore_errors=True)
    report(row)


def described(entry: Entry) -> Row:
    """The part of a row that is known before anything is measured."""
    return {"library": entry.library, "model": entry.name, "family": entry.family, "size": entry.extent}


def attempt(step: Step, case: Case, before: dict[str, Numbers], seconds: int) -> Numbers:
    """`ok`, else the reason; seconds; the findings of the step."""
    missing = [need for need in step.needs if not before[need]["ok"]]
    if missing:
        return {"ok": False, "skipped": True, "reason": f"not run: {', '.join(missing)} failed"}
    began = time.perf_counter()
    try:
        with limited(seconds):
            outcome = {"ok": True, **step.run(case)}
    except CheckError as error:
        outcome = {"ok": False, "reason": str(error), **error.numbers}
    except Exception as error:  # noqa: BLE001 - whatever a model runs into is a row of the table
        reason = f"{type(error).__name__}: {first_line(error, REASON_LENGTH)}"
        outcome = {"ok": False, "reason": reason, "where": _last_frame(error)}
    return {**outcome, "seconds": round(time.perf_counter() - began, 3)}


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise `StepTimeoutError` after so many seconds."""

    def late(_signal: int, _frame: object) -> None:
        raise StepTimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _difference_in_double(case: Case, numbers: Numbers) -> float:
    """The difference of both models in float64, where rounding no longer counts."""
    inputs = in_double(case.inputs)
    try:
        found = run(case.cut.double(), inputs)
        return difference(run(mask(case.dense, case.graph, case.half).double(), inputs), found)
    except RuntimeError as error:
        why = first_line(error, REASON_LENGTH)
        reason = f"masked and cut differ by {numbers['difference']:.1e}; float64 fails: {why}"
        raise CheckError(reason, **numbers) from error
    finally:
        case.cut.float()


def _last_frame(error: BaseException) -> str:
    """The last frame of the traceback."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return ""
    return f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno} {frame.tb_frame.f_code.co_name}"

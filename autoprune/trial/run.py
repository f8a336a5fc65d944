"""One trial: prepare, sparsify, score, cut, recalibrate, fine-tune, evaluate; each timed. No Ray, no Optuna.

A trial that fails (an exception, a loss that is not finite, no memory) is an Outcome with its error, not an exception.
What a stage does stands in `stages.py`; here stands their order, and here alone the trial's progress is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from autoprune import methods
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.errors import AutopruneError, TargetError
from autoprune.methods import Method
from autoprune.recipe import Recipe
from autoprune.study.constraints import Constraints, Latency
from autoprune.study.outcome import BROKEN, Outcome, Rung
from autoprune.tasks import Task
from autoprune.training.evaluate import evaluate, recalibrate
from autoprune.training.fit import DivergedError
from autoprune.training.notice import PausedByNoticeError
from autoprune.training.processes import Processes
from autoprune.trial import stages
from autoprune.trial.checkpoint import CutRecord, TrialFolder
from autoprune.trial.latency_prices import PRICES_NOTE, has_no_prices, priced, prices_as_note
from autoprune.trial.latency_target import FLOPS_NOTE, LatencyAim, met_by_flops
from autoprune.trial.progress import CutSoFar, Progress
from autoprune.trial.remains import Remains
from autoprune.trial.shared import SharedState
from autoprune.trial.start import StartingPoint, choose_start, meets_already

#: How often what is kept is selected anew, at other FLOPs, to take the time that was asked for.
CORRECTIONS = 4

#: Called after every rung with the rung and the cost ratios; False ends the trial with status `stopped`.
Report = Callable[[Rung, dict[str, float]], bool]
#: Notes a rung (share, images, metric) and says whether the trial goes on.
HearRung = Callable[[float, int, float], bool]


@dataclass(frozen=True, eq=False)
class Trial:
    """A finished trial: its outcome; if it completed, the pruned model; if it was cut, what was kept of which graph."""

    outcome: Outcome
    model: nn.Module | None = None
    remains: Remains | None = None

    @property
    def keep(self) -> Keep | None:
        """What was kept of `graph`."""
        return self.remains.keep if self.remains is not None else None

    @property
    def graph(self) -> ChannelGraph | None:
        """The graph that was cut."""
        return self.remains.graph if self.remains is not None else None


def run_trial(recipe: Recipe, task: Task, report: Report | None = None, *, parent: Path | None = None) -> Outcome:
    """Run one recipe on a task and return what it gave; see `run` for trials that share work, and for `parent`."""
    return run(recipe, SharedState.of(task), report, parent=parent).outcome


def run(
    recipe: Recipe,
    shared: SharedState,
    report: Report | None = None,
    *,
    id: int = 0,  # noqa: A002 - the field of Outcome has this name
    control: bool = False,
    clock: Callable[[], float] | None = None,
    scratch: Path | None = None,
    parent: Path | None = None,
    final: bool = False,
    constraints: Constraints | None = None,
    latency: Latency | None = None,
) -> Trial:
    """Run one recipe; never raises for a failing recipe.

    Args:
        recipe: what to do.
        shared: what it shares with other trials.
        report: hears of every rung and may end the trial; of several processes only the first's is asked.
        id: copied into the outcome.
        control: copied into the outcome.
        clock: seconds since the study began; default: since the trial began.
        scratch: folder for the trial's checkpoint; with it, a trial that is run again, on this or another machine, goes
            on where it was interrupted or stopped. Rungs before that are not reported again. With it, the trial also
            ends, by `PausedByNoticeError`, when this process has notice of its own end while it trains.
        parent: folder with the model of the recipe's parent, for a recipe that goes on from the front.
        final: once it has ended, the model is also measured on the test split.
        constraints: what the pruned model may not exceed; if it does, the trial ends right after the cut with status
            `stopped`, and the error says by which constraint. The dense model may exceed them all.
        latency: how the pruned model is timed, right after the cut; None = not at all.
    """
    progress = Progress()
    folder = TrialFolder(scratch, writes=shared.processes.leads, metric=shared.task.metric_spec)
    now, before = clock or progress.elapsed, folder.load_progress()
    started = before.started if before is not None else now()
    if before is not None:
        progress.take_over(before)
    hear_rung = _rung_listener(progress, folder, report, started, shared.processes)
    model, error = None, None
    try:
        model = _run_stages(recipe, shared, progress, hear_rung, folder, parent, constraints or Constraints(), latency)
        if final and not progress.stopped:
            with progress.stage("test"):  # nothing is decided any more
                progress.tested = shared.test_value(model)
        folder.save_progress(progress.record(started))  # once more: the stage that a rung ended is timed only now
    except stages.ConstraintError as broken:
        progress.broken = f"{BROKEN}{broken}"
    except PausedByNoticeError:
        folder.save_progress(progress.record(started))
        raise
    except Exception as failure:  # noqa: BLE001 - a failing recipe is data: the search learns from it and goes on
        error = _one_line(failure)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    outcome = replace(progress.outcome(recipe, error), id=id, control=control, started=started, finished=now())
    return Trial(outcome, model if outcome.completed else None, progress.cut.remains)


def _rung_listener(
    progress: Progress, folder: TrialFolder, report: Report | None, started: float, processes: Processes
) -> HearRung:
    """Notes every rung, saves how far the trial has come, and asks the first process's `report` whether it goes on.

    A metric that is no number, or out of the task's range for it, fails the trial: nothing could be compared with it.
    """

    def hear_rung(share: float, images: int, metric: float) -> bool:
        if not folder.metric.contains(metric):
            what = f"the {folder.metric.name} is {metric:g} on the validation split after {images:,} images"
            raise DivergedError(what, where="training", allowed=f"a number, {folder.metric.range_text()}")
        rung = progress.add_rung(share, images, metric)
        folder.save_progress(progress.record(started))
        stops = processes.leads and report is not None and not report(rung, dict(progress.cut.ratios))
        progress.stopped = processes.agree(stops)
        return not progress.stopped

    return hear_rung


def _run_stages(
    recipe: Recipe,
    shared: SharedState,
    progress: Progress,
    hear_rung: HearRung,
    folder: TrialFolder,
    parent: Path | None,
    constraints: Constraints,
    latency: Latency | None,
) -> nn.Module:
    """All stages but those that an earlier process has behind it; the model that is left in the end."""
    with progress.stage("prepare"):
        method = methods.build(recipe.method)
        found = _load_pruned(shared, progress, folder)
    aim = None
    if found is None and recipe.target.latency is not None:
        recipe, aim = _aim_at_flops(recipe, method, shared, progress, latency)
    if found is None:
        recipe = _find_prices(recipe, shared, progress, latency)
        found = _prune_model(recipe, method, shared, progress, folder, parent, constraints, latency, aim)
    pruned, spent = found
    _fine_tune(pruned, spent, recipe, method, shared, progress, hear_rung, folder)
    return pruned


def _aim_at_flops(
    recipe: Recipe, method: Method, shared: SharedState, progress: Progress, latency: Latency | None
) -> tuple[Recipe, LatencyAim | None]:
    """The recipe with FLOPs in the place of its latency, which the outcome notes, and what its cut is held to."""
    with progress.stage("latency"):
        aimed = met_by_flops(recipe, shared, latency)
        flops = aimed.target.flops or 1.0
        aim = LatencyAim.of(recipe, flops, method, shared, latency)
    progress.cut = progress.cut.noted(FLOPS_NOTE, flops)
    return aimed, aim


def _find_prices(recipe: Recipe, shared: SharedState, progress: Progress, latency: Latency | None) -> Recipe:
    """The recipe with numbers in the place of scores per latency; the outcome notes them."""
    if not has_no_prices(recipe):
        return recipe
    with progress.stage("latency"):
        found = priced(recipe, shared, latency)
    progress.cut = progress.cut.noted(PRICES_NOTE, prices_as_note(found))
    return found


def _load_pruned(shared: SharedState, progress: Progress, folder: TrialFolder) -> tuple[nn.Module, int] | None:
    """The pruned model that an earlier process left, and the training images spent on it."""
    saved = folder.load_cut(shared)
    if saved is None:
        return None
    pruned, record = saved
    progress.cut = CutSoFar(
        remains=pruned.remains,
        ratios=dict(record.ratios),
        latency=record.latency,
        notes=dict(record.notes),
    )
    return shared.runtime.place(pruned.model), record.spent


def _prune_model(
    recipe: Recipe,
    method: Method,
    shared: SharedState,
    progress: Progress,
    folder: TrialFolder,
    parent: Path | None,
    constraints: Constraints,
    latency: Latency | None,
    aim: LatencyAim | None,
) -> tuple[nn.Module, int]:
    """The cut and recalibrated model, and the training images that the trial has spent on the way."""
    with progress.stage("prepare"):
        stages.check_constraints(constraints, recipe.target)
        start = choose_start(recipe, method, shared, parent)
    if meets_already(start, recipe, shared.dense_cost):
        progress.cut = progress.cut.of(start.remains, shared.dense_cost)
        model, spent = start.model, 0
    else:
        model, spent = _cut_model(start, recipe, method, shared, progress, folder, aim)
    pruned = shared.runtime.place(model)
    _time_pruned(pruned, shared, progress, latency)
    if not method.is_dense:
        stages.check_costs(constraints, progress.cut.costs)
    with progress.stage("recalibrate"):
        recalibrate(pruned, shared.task, shared.runtime, seed=recipe.seed)
    _save_cut(pruned, spent, progress.cut, folder)
    return pruned, spent


def _cut_model(
    start: StartingPoint,
    recipe: Recipe,
    method: Method,
    shared: SharedState,
    progress: Progress,
    folder: TrialFolder,
    aim: LatencyAim | None,
) -> tuple[nn.Module, int]:
    """What all cuts of the method leave, each after its stage, and the training images spent on the way."""
    context, remains, spent = shared.context(start.model, recipe.seed, start.graph), start.remains, 0
    for cut in range(len(method.stage_shares)):
        with progress.stage("sparsify"):
            checkpoint = folder.of_stage(f"sparsify-{cut}")
            context = stages.sparsify(context, method, recipe, shared, start, cut=cut, checkpoint=checkpoint)
        with progress.stage("score"):
            state = {"shared": shared, "start": start, "remains": remains, "cut": cut}
            select = partial(stages.select_channels, context, method, **state)
            selected = select(recipe=recipe) if aim is None else _selected_in_time(recipe, select, aim, progress)
            progress.cut = progress.cut.after(selected, shared.dense_cost)
            remains = selected.remains.after(selected.keep)
        with progress.stage("cut"), shared.runtime.gradients():  # some methods train what they have cut
            context = stages.remove_channels(method, selected)
        spent += stages.stage_images(method, recipe, cut)
    return context.model, spent


def _selected_in_time(
    recipe: Recipe, select: Callable[..., stages.Selected], aim: LatencyAim, progress: Progress
) -> stages.Selected:
    """What is kept of FLOPs that are corrected until it takes what was asked for; the outcome notes these.

    Where widths are too coarse for that it is the nearest that was found, below the limit if there was any.
    """
    found: list[tuple[tuple[bool, float], Recipe, stages.Selected]] = []
    nearer: Recipe | None = recipe
    while nearer is not None and len(found) <= CORRECTIONS:
        try:
            selected = select(recipe=nearer)
        except TargetError:  # no widths come near enough to these FLOPs
            if not found:
                raise
            break
        time = aim.time_of(selected.remains.after(selected.keep))
        if time is None:
            return selected
        found.append((aim.distance(time), nearer, selected))
        nearer = aim.corrected(nearer, time)
    _, chosen, selected = min(found, key=lambda one: one[0])
    progress.cut = progress.cut.noted(FLOPS_NOTE, chosen.target.flops)
    return selected


def _time_pruned(pruned: nn.Module, shared: SharedState, progress: Progress, latency: Latency | None) -> None:
    """Note the latency of the cut model; its weights do not matter."""
    if latency is None:
        return
    with progress.stage("latency"):
        timing = shared.timing(pruned, latency)
    ratios = {**progress.cut.ratios, "latency": timing.ratio}
    measured = {"latency_ms": timing.ms, "latency_low": timing.low, "latency_high": timing.high}
    progress.cut = replace(progress.cut, latency=measured, ratios=ratios)


def _save_cut(pruned: nn.Module, spent: int, cut: CutSoFar, folder: TrialFolder) -> None:
    if cut.remains is None:
        return
    record = CutRecord(spent=spent, ratios=dict(cut.ratios), notes=dict(cut.notes), **cut.latency)
    folder.save_cut(pruned, cut.remains, record)


def _fine_tune(
    model: nn.Module,
    spent: int,
    recipe: Recipe,
    method: Method,
    shared: SharedState,
    progress: Progress,
    hear_rung: HearRung,
    folder: TrialFolder,
) -> None:
    """Measure the rungs right after the cut, during the fine-tuning and at its end."""

    def measure(*, exact: bool) -> float:
        with progress.stage("evaluate"):
            runtime = shared.exact if exact else shared.runtime
            return evaluate(model, shared.task.validation, shared.task, runtime, shared.processes)

    first = 0.0 in recipe.training.rungs and method.judged_at_cut and not progress.has_passed(0.0)
    if first and not hear_rung(0.0, spent, measure(exact=False)):
        return
    plan = stages.RungPlan.of(recipe.training, spent)

    def on_rung(images: int, metric: float) -> bool:
        share = plan.share_after(images)
        return progress.has_passed(share) or hear_rung(share, spent + images, metric)

    checkpoint = folder.of_stage("finetune")
    with progress.stage("finetune"):
        log = stages.fine_tune(model, recipe, shared, plan, on_rung=on_rung, checkpoint=checkpoint)
    if log.remark:
        progress.cut = progress.cut.noted("steps", log.remark)
    if not log.stopped:
        hear_rung(1.0, spent + log.images, measure(exact=True))
        progress.stopped = False  # nothing was left to stop


def _one_line(error: Exception) -> str:
    text = str(error) if isinstance(error, AutopruneError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]

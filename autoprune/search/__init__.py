"""Search: which recipes to run and where. `search` starts a study, `resume` goes on with one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoprune.results import Study, StudyFolder, load_study
from autoprune.search.session import Limits, Session, View
from autoprune.space import load_space

if TYPE_CHECKING:
    from autoprune.search.prepare import Prepared


def search(
    space: str | Path,
    *,
    out: str | Path,
    trials: int | None = None,
    minutes: float | None = None,
    address: str | None = None,
    overrides: Sequence[str] = (),
    in_process: bool = False,
    view: View | None = None,
) -> Study:
    """Search a space until the budget is used up.

    Args:
        space: a ready space or a space file.
        out: study folder, new or empty.
        trials: how many recipes, controls included.
        minutes: how long; whichever of the two comes first. Given, they replace the budget of the space file.
        address: of a running Ray cluster; None starts Ray on this machine.
        overrides: `space.target.flops=0.5`.
        in_process: one recipe after the other in this process, without Ray.
        view: is told of the progress.

    Returns:
        The study as the folder holds it.

    Raises:
        InputError: something handed in is wrong; nothing was written.
        StudyError: nothing can be pruned, or no trial completed.
        SearchInterrupted: Ctrl-C or SIGTERM; what had finished is kept.
    """
    from autoprune import methods
    from autoprune.search import prepare as steps

    folder = StudyFolder(Path(out))
    steps.check_new_folder(folder.path)
    config = load_space(space, overrides=overrides, check_method=methods.build)
    prepared = steps.prepare(steps.with_budget(config, trials, minutes))
    steps.create_folder(folder, prepared)
    with steps.lock(folder):
        session = Session(prepared.config, prepared.space, folder, limits=Limits.of(prepared.config.budget), view=view)
        _run(session, prepared, address=address, in_process=in_process)
    return load_study(folder.path)


def resume(
    folder: str | Path,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    address: str | None = None,
    in_process: bool = False,
    view: View | None = None,
) -> Study:
    """Go on with a study that was cut short, or that has ended: recipes without an outcome run again, then new ones.

    Args:
        folder: of the study.
        trials: of the whole study, those that ended included.
        minutes: from now on; with neither, what is left of the study's budget.
        address: as for `search`, and so are the next two.
        in_process: without Ray.
        view: is told of the progress.

    Returns:
        The study as the folder holds it then.

    Raises:
        InputError: the folder holds no study, another search runs in it, or its model or data have changed.
        StudyError, SearchInterrupted: as for `search`.
    """
    from autoprune.search import prepare as steps
    from autoprune.search.session import last_time

    paths = StudyFolder(Path(folder))
    load_study(folder)
    with steps.lock(paths):
        study = load_study(folder)
        config = steps.with_budget(steps.stored_config(study), trials, minutes)
        prepared = steps.prepare(config)
        steps.check_same_model(study, prepared)
        start = 0.0 if minutes is None else last_time(study)
        limits = Limits.of(config.budget, start=start)
        session = Session(config, prepared.space, paths, limits=limits, study=study, view=view)
        _run(session, prepared, address=address, in_process=in_process)
    return load_study(folder)


def _run(session: Session, prepared: Prepared, *, address: str | None, in_process: bool) -> None:
    resources = prepared.config.resources
    if session.finished_handing_out():
        pass  # nothing is left of the budget, and nothing unfinished
    elif in_process:
        import torch

        from autoprune.search import local
        from autoprune.search.evaluate import BenchEvaluator

        torch.set_num_threads(resources.cpus_per_trial)
        evaluator = BenchEvaluator(prepared.bench, session.clock)
        local.run(session, evaluator, trial_timeout=60 * resources.trial_timeout_minutes)
    else:
        from autoprune.search import tune

        tune.run(session, prepared.open_evaluator, resources, address=address)
    session.close()


__all__ = ["resume", "search"]

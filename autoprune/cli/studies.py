"""search, resume, finish, status, report: commands for a whole study."""

from __future__ import annotations

import contextlib
import math
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.cli.common import member_facts, without_collector
from autoprune.cli.picking import picked_trials
from autoprune.cli.view import (
    FINALIST_NUMBERS,
    finalists_table,
    front_table,
    open_view,
    print_json,
    reproduction_line,
    show,
)
from autoprune.cli.wrapping import say
from autoprune.errors import InputError
from autoprune.schema import read, to_plain
from autoprune.study.folder import Study, load_study
from autoprune.study.outcome import Outcome

if TYPE_CHECKING:
    from autoprune.analysis.report.peers import Peer

#: The share of the dense FLOPs that the summary of a search asks for.
HALF = 0.5


def search(args: Namespace) -> None:
    """Search a space until its budget is spent; then report."""
    from autoprune.search import search as start

    out = args.out or Path("runs") / Path(args.space).stem
    chosen = {"overrides": args.set, "sampler": args.sampler, "warm_start": args.warm_start}
    _run_watched(start, args.space, out=out, **chosen, **_budget_options(args))


def resume(args: Namespace) -> None:
    """Go on with the study of a folder; then report."""
    from autoprune.search import resume as go_on

    load_study(args.folder)
    _run_watched(go_on, args.folder, **_budget_options(args))


def finish(args: Namespace) -> None:
    """Train the front of a study again and measure it on the test split; then report."""
    from autoprune.search import finish as train_again

    trials = picked_trials(load_study(args.folder), args)
    names = ("seeds", "images", "most", "address", "in_process", "trackers")
    _run_watched(train_again, args.folder, trials=trials, **{name: getattr(args, name) for name in names})


def status(args: Namespace) -> None:
    """Print how a study stands and its front; with --watch only when its search has ended."""
    if args.watch:
        _watch(args)
        return
    with without_collector():
        study = load_study(args.folder)
        if args.json:
            print_json(study_facts(study))
        else:
            _print_study(study)


def report(args: Namespace) -> None:
    """Write the report and the front as a table, or serve the report while a search runs."""
    from autoprune.analysis.report.page import write_report
    from autoprune.analysis.report.peers import read_peer

    if args.watch and args.figure is not None:
        raise InputError("a page that is served draws none", where="--figure", allowed="without --watch")
    if args.port is not None and not args.watch:
        raise InputError("is for --watch", where="--port", allowed="with --watch")
    with without_collector():
        study = load_study(args.folder)
        peers = [read_peer(path, study.metric) for path in args.others]
        if args.watch:
            _serve_report(args, peers)
            return
        written = [write_report(study, study.folder.comparison, peers)] if peers else _write_report(study)
        if args.figure is not None:
            from autoprune.analysis.report.paper_figure import write_figure

            written.append(write_figure(study, args.figure, peers))
    for path in written:
        print(path)


def _serve_report(args: Namespace, peers: Sequence[Peer]) -> None:
    """Serve the report until Ctrl-C."""
    from autoprune.analysis.report.live import HOST, LivePage, open_server

    with open_server(LivePage(args.folder, peers), args.port or 0) as server:
        print(f"http://{HOST}:{server.server_port}/ follows {args.folder} until Ctrl-C", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def study_facts(study: Study) -> dict[str, Any]:
    """A study in plain data: counts by status, the dense model, the front, the best at half the FLOPs, finalists."""
    from autoprune.study import finalists, pareto

    members = study.front
    under_half = [member for member in members if (member.flops_ratio or math.inf) <= HALF]
    names = ("completed", "stopped", "failed")
    return {
        "study": str(study.folder.path),
        "trials": {name: sum(outcome.status == name for outcome in study.outcomes) for name in names},
        "unfinished": len(study.unfinished()),
        "taken_over": _taken_over(study),
        "metric": to_plain(study.metric),
        "dense": study.config.get("dense"),
        "front": [member_facts(member, study.metric) for member in members],
        "best_under_half": _best_of(study, under_half),
        "hypervolume": pareto.hypervolume(pareto.points(members, study.tradeoff), pareto.reference(study.tradeoff)),
        "finalists": finalists.rows(study),
        "finalists_to_train": _finalists_to_train(study),
        "unread": list(study.unread),
        "report": str(study.folder.report) if study.folder.report.is_file() else None,
    }


def _best_of(study: Study, members: Sequence[Outcome]) -> dict[str, Any] | None:
    """The best of the members in plain data, if there is one."""
    best = max(members, key=lambda member: study.tradeoff.height(member) or 0.0, default=None)
    return None if best is None else member_facts(best, study.metric)


def _taken_over(study: Study) -> int:
    """Recipes that the study began with, from the front of an earlier one or from its space file."""
    return len(study.config.get("sampler", {}).get("first", ()))


def _finalists_to_train(study: Study) -> int:
    """Trainings that a search with time kept for its finalists still has to do, or had no time for."""
    from autoprune.study import finalists
    from autoprune.study.config import Finalists

    wanted = read(Finalists, study.config.get("finalists", {}), f"{study.folder.config}: finalists")
    if wanted.share is None or not study.front:
        return 0
    return len(finalists.to_train(study, replace(wanted, images=None if study.finalists else wanted.images)))


def _budget_options(args: Namespace) -> dict[str, Any]:
    names = ("trials", "minutes", "gpu_hours", "images", "until", "address", "in_process", "trackers")
    return {name: getattr(args, name) for name in names}


def _run_watched(run: Any, *args: Any, **options: Any) -> None:
    """Run a search under the live view, write the report and print what came out."""
    view = open_view(sys.stdout)
    try:
        study = run(*args, **options, view=view).study
    finally:
        view.close()
    _write_report(study)
    if not sys.stdout.isatty():
        print_json({"event": "end", **study_facts(study)})
        return
    _print_study(study)
    folder, cost = study.folder.path, study.tradeoff.costs[0]
    chosen = f"autoprune export {folder} --max-{cost} {HALF} --to {folder}/export"
    say(f"\nreport: {study.folder.report}\nexport: {chosen}")


def _watch(args: Namespace) -> None:
    """Show a search until it has ended, then how the study stands; after Ctrl-C nothing more."""
    from autoprune.cli.watching import watch

    found = watch(args.folder, as_json=args.json)
    if found is None:
        return
    state, study = found
    if args.json or not sys.stdout.isatty():
        print_json({"event": "end", "state": state.state, "error": state.error, **study_facts(study)})
        return
    _print_study(study)
    if state.error is not None:
        say(f"{state.state}: {state.error}")


def _write_report(study: Study) -> list[Path]:
    from autoprune.analysis.report.frames import write_pareto_csv
    from autoprune.analysis.report.page import write_report

    return [write_report(study, study.folder.report), write_pareto_csv(study, study.folder.pareto)]


def _print_study(study: Study) -> None:
    from autoprune.analysis.report.summary import summarise

    summary = summarise(study)
    show(front_table(study), title=f"front of {study.folder.path}", numbers=(study.metric.name,))
    for line in (summary.headline, summary.verdict, *summary.facts):
        if line:
            say(line)
    if study.finalists:
        title = f"finalists: {study.metric.name}, mean and standard deviation over seeds"
        show(finalists_table(study), title=title, numbers=list(FINALIST_NUMBERS.values()))
        if line := reproduction_line(study):
            say(line)
    if (count := _finalists_to_train(study)) > 0:
        say(f"{count} finalists are not trained yet; after the search: autoprune finish {study.folder.path}")
    for remark in study.config.get("remarks") or ():
        say(remark)
    if study.unread:
        more = f" (and {len(study.unread) - 1} more)" if len(study.unread) > 1 else ""
        say(f"a later version has written what this one does not know: {study.unread[0]}{more}")
    if _taken_over(study):
        say(f"it began with {_taken_over(study)} recipes that were handed in")

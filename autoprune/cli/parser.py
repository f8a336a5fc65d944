"""The commands and their options; argv becomes one call of a command's function, every error one line and an exit code.

Exit codes: 0 done; 2 the user's input is wrong; 1 anything else. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from autoprune.cli.options import (
    CommandParser,
    PrintVersion,
    add_budget,
    add_command,
    add_json,
    add_place,
    add_study,
    number_within,
    port,
    positive,
    study_here,
    study_place,
)
from autoprune.cli.other_commands import OTHER_COMMANDS
from autoprune.cli.picking import add_picks
from autoprune.cli.wrapping import wrapped
from autoprune.errors import LINE, AutopruneError, first_line
from autoprune.files import file_trouble, is_url

ABOUT = """Search over ways to prune a trained CNN. autoprune tries methods, widths, penalties and fine-tuning recipes
on your model and data, and hands back a front of accuracy against FLOPs, a report, and the best pruned model as files
that load anywhere."""

#: What an error line begins with.
_PROGRAM = "autoprune: error: "

FIRST_STEPS = ("autoprune search digits_demo", "autoprune report runs/digits_demo")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    args, named = None, None
    try:
        args = build_parser().parse_args(argv)
        named = _study_named(args)
        run = getattr(import_module(f"autoprune.cli.{args.home}"), args.command)
        with study_here(args):
            run(args)
        sys.stdout.flush()
    except AutopruneError as error:
        _print_error(error.line(LINE - len(_PROGRAM)))
        return error.exit_code
    except BrokenPipeError:  # the reader, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        _print_error(_interrupted(args, named))
        return 1
    except Exception as error:  # noqa: BLE001 - the last resort: one line for the user, everything in a file
        return _report_unexpected(error)
    return 0


def _report_unexpected(error: Exception) -> int:
    """Say what went wrong in one line and return the exit code: the user's disk and files, or a bug of ours."""
    if (known := file_trouble(error)) is not None:
        _print_error(known.line(LINE - len(_PROGRAM)))
        return known.exit_code
    said = f"{type(error).__name__}: {first_line(error)}"
    _print_error(f"{said} (this is a bug; the traceback is {_write_traceback()})")
    return 1


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, without importing what the commands need."""
    parser = CommandParser("autoprune", ABOUT, FIRST_STEPS)
    parser.add_argument("--version", action=PrintVersion, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for add in (
        _add_search,
        _add_resume,
        _add_finish,
        _add_status,
        _add_report,
        _add_choose,
        _add_replay,
        _add_export,
        _add_verify,
        *OTHER_COMMANDS,
    ):
        add(commands)
    return parser


def _add_search(commands: Any) -> None:
    parser = add_command(
        commands,
        "studies.search",
        "search a space of pruning recipes",
        """Try recipes from a search space until the budget is spent. Ray Tune runs the trials side by side, Optuna
        proposes them. Two logs in the study folder are written as trials start and end; they are all that `resume`,
        `status`, `report` and `export` need. On a terminal a live view shows trials, front and time left; elsewhere
        one JSON object a line. The summary names the best model at half the FLOPs and the report.""",
        "autoprune search digits_demo",
        "autoprune search cifar10_resnet20 --minutes 10 --out runs/c10",
        "autoprune search my.yaml --set space.target.flops=0.5 --set seed=3",
    )
    parser.add_argument("space", metavar="SPACE", help="a ready space (autoprune spaces) or a YAML file")
    parser.add_argument(
        "--out",
        type=study_place,
        metavar="DIR",
        help="new study folder, or s3://bucket/path, gs://... (default: runs/SPACE)",
    )
    add_budget(parser)
    parser.add_argument(
        "--sampler", metavar="NAME", help="who proposes: tpe, gp, nsga2, nsga3 or random (default: the space's)"
    )
    parser.add_argument(
        "--warm-start", type=Path, metavar="DIR", help="try the front of this earlier study first, as far as it fits"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value of the space, by its path in the file; repeatable",
    )


def _add_resume(commands: Any) -> None:
    parser = add_command(
        commands,
        "studies.resume",
        "go on with a search that was interrupted or ended",
        """Rebuild the search from the logs of its folder and go on: finished trials are kept, trials that had not
        ended run again. Works after a crash, a kill, a lost machine, and on another cluster. With a larger budget
        it also prolongs a search that had ended.""",
        "autoprune resume runs/digits_demo",
        "autoprune resume runs/c10 --minutes 30",
    )
    add_study(parser)
    add_budget(parser)


def _add_finish(commands: Any) -> None:
    parser = add_command(
        commands,
        "studies.finish",
        "train the front again and measure it on the test split",
        """Numbers to quote. Members of the front are trained again, longer than in the search and with several seeds,
        and so is the dense control; then each is read once on the test split, which no search looks at. A recipe
        runs as a whole once more, from the dense weights on: its widths are found anew and meet the same target.
        Of the seeds the model that is best on the validation split is kept, and `export` hands it over. What has
        finished is not repeated: run it again after a crash, or with more seeds. A `finalists:` section of the space
        sets the defaults; with a `share` the search keeps that part of its minutes for this.""",
        "autoprune finish runs/digits_demo",
        "autoprune finish runs/c10 --seeds 5 --images 500000 --most 3",
        "autoprune finish runs/c10 --trials 185 292",
        "autoprune finish runs/c10 --max-flops 0.5",
    )
    add_study(parser)
    parser.add_argument(
        "--seeds", type=positive(int), metavar="N", help="trainings of each (default: the space's, else 3)"
    )
    parser.add_argument(
        "--images",
        type=positive(int),
        metavar="N",
        help="training images of each (default: the space's, else 5 times those of the longest recipe)",
    )
    parser.add_argument(
        "--most",
        type=positive(int),
        metavar="N",
        help="members, evenly spread along the front if it has more (default: the space's, else 8)",
    )
    parser.add_argument(
        "--trials", type=int, nargs="+", default=[], metavar="ID", help="these trials, in place of the front"
    )
    add_picks(parser, knee="where the front bends most, in place of the front")
    add_place(parser)


def _add_status(commands: Any) -> None:
    parser = add_command(
        commands,
        "studies.status",
        "how far a search is, and its front",
        """Count the trials of a study by how they ended, and print the front: the models that no other beats in both
        metric and cost. Reads the study folder only, so it can look at a search that is running. With --watch it
        shows the search, from any machine that sees the folder, until it has ended or Ctrl-C: on a terminal the view
        that the search itself shows, elsewhere one JSON object a line whenever something has changed.""",
        "autoprune status runs/digits_demo",
        "autoprune status runs/digits_demo --json | jq .front",
        "autoprune status runs/digits_demo --watch",
    )
    add_study(parser)
    parser.add_argument("--watch", action="store_true", help="go on until the search has ended")
    add_json(parser)


def _add_report(commands: Any) -> None:
    parser = add_command(
        commands,
        "studies.report",
        "write report.html and pareto.csv",
        """Write the report of a study: one HTML file that needs no network, with the front, all trials, the widths
        of models, progress over time and the methods compared; and the front as pareto.csv. A search writes both
        when it ends; this writes them again, or of a search that is running. With OTHER studies, or tables of points
        that others have measured (CSV: the metric, flops_ratio or another cost, name, source), it is
        comparison.html, in which they lie over the front. With --watch the report is a page on this machine that
        renews itself until Ctrl-C.""",
        "autoprune report runs/digits_demo",
        "autoprune report runs/this_week runs/last_week published.csv",
        "autoprune report runs/digits_demo --watch",
        "autoprune report runs/digits_demo --figure front.pdf",
    )
    add_study(parser)
    parser.add_argument(
        "others", type=Path, nargs="*", metavar="OTHER", help="folders of other studies and CSV files to lay over it"
    )
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw the front for a paper as well: a name in .svg or .pdf"
    )
    parser.add_argument("--watch", action="store_true", help="serve a page that follows the search, until Ctrl-C")
    parser.add_argument("--port", type=port, metavar="N", help="of that page (default: one that is free)")


def _add_choose(commands: Any) -> None:
    parser = add_command(
        commands,
        "choices.choose",
        "which models a study has for a loss or a cost",
        """Show which model of a study each wish picks, and what it costs and loses; nothing is written. Limits that
        stand together hold together; one with several values gives a line for each. Without a wish: the cheapest
        within half a point, one and two points of the dense model, the best at half the cost, and the knee of the
        front. `export` takes the same options. Members that `finish` has trained again have the numbers that they
        have since then; only the validation split chooses.""",
        "autoprune choose runs/digits_demo",
        "autoprune choose runs/digits_demo --within 0.5 1 2 --knee",
        "autoprune choose runs/timed --within 1 --max-latency 5ms 8ms",
    )
    add_study(parser)
    add_picks(parser, knee="where the front bends most, besides", several=True)
    parser.add_argument("--searched", action="store_true", help="as the search left them, whatever finish has trained")
    add_json(parser)


def _add_replay(commands: Any) -> None:
    parser = add_command(
        commands,
        "trials.replay",
        "run one recorded trial again and compare",
        """Run the recipe of one trial again, from the dense model on, and compare what comes out with what was
        recorded. Widths and costs must be equal and the metric must agree within the tolerance; otherwise the
        exit code is 1. On the same machine with the same versions the numbers are usually equal to the digit.""",
        "autoprune replay runs/digits_demo --trial 17",
    )
    add_study(parser)
    parser.add_argument("--trial", type=int, required=True, metavar="ID", help="number of the trial")
    parser.add_argument(
        "--tolerance",
        type=number_within(0, 1),
        default=0.01,
        metavar="T",
        help="how far the metric may be off, as a share of its range (default: 0.01, of accuracy one point)",
    )
    add_json(parser)


def _add_export(commands: Any) -> None:
    parser = add_command(
        commands,
        "exports.export",
        "one model of the front as files that load anywhere",
        """Write one model of a study as artefact (safetensors and JSON), ONNX and torch.export program, with a model
        card. Every file is loaded again, compared with the model and scored before the folder appears. Without a
        choice of yours it is the knee of the front. Members that `finish` has trained again are handed over as they
        are then.""",
        "autoprune export runs/digits_demo --max-flops 0.5 --to small",
        "autoprune export runs/digits_demo --within 1 --to small",
        "autoprune export runs/timed --max-latency 5ms --to fast",
        "autoprune export runs/digits_demo --trial 17 --to seventeen",
    )
    add_study(parser)
    parser.add_argument("--trial", type=int, metavar="ID", help="this trial")
    add_picks(parser, knee="where the front bends most (default)")
    parser.add_argument("--searched", action="store_true", help="as the search left it, whatever finish has trained")
    parser.add_argument("--int8", action="store_true", help="ONNX in eight bits as well, calibrated on training images")
    parser.add_argument("--openvino", action="store_true", help="OpenVINO's IR as well (extra openvino)")
    parser.add_argument("--hub-layout", action="store_true", help="laid out as the Hugging Face Hub wants it")
    parser.add_argument("--unscored", action="store_true", help="without a score of each file on the validation split")
    parser.add_argument("--to", type=Path, required=True, metavar="OUT", help="new folder")


def _add_verify(commands: Any) -> None:
    parser = add_command(
        commands,
        "exports.verify",
        "score the files of an export on the validation data",
        """Load each file of an exported folder on its own (the artefact with the model's factory, ONNX with
        onnxruntime, the program with torch.export) and score it on the validation split. Exit code 1 unless all
        of them have the metric that the search reported, INT8 the one that it had when it was written. Modules and
        data that are not found here are looked for in the folder that the export was made in.""",
        "autoprune verify runs/demo/export",
    )
    parser.add_argument("folder", type=Path, metavar="OUT", help="a folder written by autoprune export")
    add_json(parser)


def _study_named(args: argparse.Namespace) -> Path | str | None:
    """The study that a search begins or goes on with, as the command line names it."""
    if args.command == "search":
        return args.out or Path("runs") / Path(args.space).stem
    return args.folder if args.command in {"resume", "finish"} else None


def _interrupted(args: argparse.Namespace | None, named: Path | str | None) -> str:
    """What Ctrl-C has left of a command, and the command that goes on with it."""
    from autoprune.study.folder import StudyFolder

    if args is None or named is None:
        return "interrupted"
    if not is_url(named) and not StudyFolder(Path(named)).config.is_file():
        return "interrupted before the first trial: nothing was written"
    again = "finish" if args.command == "finish" else "resume"
    return f"interrupted; go on with: autoprune {again} {shlex.quote(str(named))}"


def _print_error(message: str) -> None:
    print(wrapped(f"{_PROGRAM}{' '.join(message.split())}", sys.stderr), file=sys.stderr)


def _write_traceback() -> str:
    """Where the traceback is, in words."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="autoprune-", suffix=".txt", delete=False) as file:
            file.write(traceback.format_exc())
    except OSError as error:
        return f"lost, as it cannot be written: {error.strerror}"
    return f"in {file.name}"

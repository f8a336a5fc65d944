"""argv to one call per subcommand (`commands/`), and every error to one line and an exit code.

Exit codes: 0 done; 2 the user's input is wrong; 1 anything else. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from autoprune.errors import AutopruneError, InputError

WIDTH = 79


ABOUT = """Search over ways to prune a trained CNN. autoprune tries methods, widths, penalties and fine-tuning recipes
on your model and data, and hands back a front of accuracy against FLOPs, a report, and the best pruned model as files
that load anywhere."""

FIRST_STEPS = ("autoprune search digits_demo", "autoprune report runs/digits_demo")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    try:
        args = build_parser().parse_args(argv)
        run = getattr(import_module(f"autoprune.cli.{args.home}"), args.command)
        run(args)
        sys.stdout.flush()
    except AutopruneError as error:
        _complain(str(error))
        return error.exit_code
    except BrokenPipeError:  # the reader, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        _complain("interrupted; a search goes on with: autoprune resume DIR")
        return 1
    except Exception as error:  # noqa: BLE001 - the last resort: one line for the user, everything in a file
        _complain(f"{type(error).__name__}: {error} (this is a bug; the traceback is in {_keep_traceback()})")
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, without importing what the commands need."""
    parser = _Parser("autoprune", ABOUT, FIRST_STEPS)
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for add in (
        _search,
        _resume,
        _finish,
        _status,
        _report,
        _replay,
        _export,
        _verify,
        _inspect,
        _prune,
        _methods,
        _spaces,
        _cluster,
    ):
        add(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """Help that fits 80 columns, wrong options as `InputError`."""

    def __init__(self, prog: str, description: str = "", examples: Sequence[str] = (), **rest: Any) -> None:
        lines = "\n".join(f"  {line}" for line in examples)
        rest.setdefault("formatter_class", _Formatter)
        super().__init__(
            prog,
            description=textwrap.fill(" ".join(description.split()), WIDTH),
            epilog=f"examples:\n{lines}" if examples else None,
            allow_abbrev=False,  # a script that abbreviates breaks when the next option comes
            **rest,
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see: {self.prog} --help)")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=WIDTH, max_help_position=28)


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **rest: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **rest)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"autoprune {version('autoprune')}")
        parser.exit()


def _search(commands: Any) -> None:
    parser = _command(
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
    parser.add_argument("--out", type=Path, metavar="DIR", help="new study folder (default: runs/SPACE)")
    _add_budget(parser)
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


def _resume(commands: Any) -> None:
    parser = _command(
        commands,
        "studies.resume",
        "go on with a search that was interrupted or ended",
        """Rebuild the search from the logs of its folder and go on: finished trials are kept, trials that had not
        ended run again. Works after a crash, a kill, a lost machine, and on another cluster. With a larger budget
        it also prolongs a search that had ended.""",
        "autoprune resume runs/digits_demo",
        "autoprune resume runs/c10 --minutes 30",
    )
    _add_study(parser)
    _add_budget(parser)


def _finish(commands: Any) -> None:
    parser = _command(
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
    )
    _add_study(parser)
    parser.add_argument(
        "--seeds", type=_positive(int), metavar="N", help="trainings of each (default: the space's, else 3)"
    )
    parser.add_argument(
        "--images",
        type=_positive(int),
        metavar="N",
        help="training images of each (default: the space's, else 5 times those of the longest recipe)",
    )
    parser.add_argument(
        "--most",
        type=_positive(int),
        metavar="N",
        help="members, evenly spread along the front if it has more (default: the space's, else 8)",
    )
    _add_place(parser)


def _status(commands: Any) -> None:
    parser = _command(
        commands,
        "studies.status",
        "how far a search is, and its front",
        """Count the trials of a study by how they ended, and print the front: the models that no other beats in both
        accuracy and FLOPs. Reads the study folder only, so it can look at a search that is running.""",
        "autoprune status runs/digits_demo",
        "autoprune status runs/digits_demo --json | jq .front",
    )
    _add_study(parser)
    _add_json(parser)


def _report(commands: Any) -> None:
    parser = _command(
        commands,
        "studies.report",
        "write report.html and pareto.csv",
        """Write the report of a study: one HTML file that needs no network, with the front, all trials, the widths
        of a model, progress over time and the methods compared; and the front as pareto.csv. A search writes both
        when it ends; this writes them again, or of a search that is running.""",
        "autoprune report runs/digits_demo",
    )
    _add_study(parser)


def _replay(commands: Any) -> None:
    parser = _command(
        commands,
        "trials.replay",
        "run one recorded trial again and compare",
        """Run the recipe of one trial again, from the dense model on, and compare what comes out with what was
        recorded. Widths and costs must be equal and the accuracy must agree within the tolerance; otherwise the
        exit code is 1. On the same machine with the same versions the numbers are usually equal to the digit.""",
        "autoprune replay runs/digits_demo --trial 17",
    )
    _add_study(parser)
    parser.add_argument("--trial", type=int, required=True, metavar="ID", help="number of the trial")
    parser.add_argument(
        "--tolerance",
        type=_number(0, 1),
        default=0.01,
        metavar="T",
        help="how far the accuracy may be off (default: 0.01, that is one point)",
    )
    _add_json(parser)


def _export(commands: Any) -> None:
    parser = _command(
        commands,
        "exports.export",
        "one model of the front as files that load anywhere",
        """Write one model of a study as artefact (safetensors and JSON), ONNX and torch.export program, with a model
        card. Every file is loaded again, run and compared with the model before the folder appears. Without a
        choice of yours it is the knee of the front. Members that `finish` has trained again are handed over as they
        are then.""",
        "autoprune export runs/digits_demo --max-flops 0.5 --to small",
        "autoprune export runs/timed --max-latency 5ms --to fast",
        "autoprune export runs/digits_demo --trial 17 --to seventeen",
    )
    _add_study(parser)
    parser.add_argument("--trial", type=int, metavar="ID", help="this trial")
    parser.add_argument("--knee", action="store_true", help="where the front bends most (default)")
    parser.add_argument("--max-flops", type=_ratio, metavar="R", help="the most accurate with at most this FLOPs ratio")
    parser.add_argument("--max-params", type=_ratio, metavar="R", help="the same for parameters")
    parser.add_argument("--max-activations", type=_ratio, metavar="R", help="the same for activations")
    parser.add_argument(
        "--max-latency", type=_latency, metavar="T", help="the same for latency: 5ms, or a ratio such as 0.5"
    )
    parser.add_argument(
        "--min-accuracy", type=_number(0, 1), metavar="A", help="the cheapest with at least this accuracy"
    )
    parser.add_argument("--searched", action="store_true", help="as the search left it, whatever finish has trained")
    parser.add_argument("--to", type=Path, required=True, metavar="OUT", help="new folder")


def _verify(commands: Any) -> None:
    parser = _command(
        commands,
        "exports.verify",
        "score the files of an export on the validation data",
        """Load each file of an exported folder on its own (the artefact with the model's factory, ONNX with
        onnxruntime, the program with torch.export) and score it on the validation split. Exit code 1 unless all
        of them have the accuracy that the search reported.""",
        "autoprune verify runs/demo/export",
    )
    parser.add_argument("folder", type=Path, metavar="OUT", help="a folder written by autoprune export")
    _add_json(parser)


def _inspect(commands: Any) -> None:
    parser = _command(
        commands,
        "inspection.inspect",
        "what of a model can be pruned",
        """Trace a model and list its groups of channels that live and die together: how many channels, how many of
        them go at once where that is not one, the share of all FLOPs and parameters that would be saved by all but
        one going, and the layers that lose weights with them (.bn1: beside the one that names the group). Then the
        groups that cannot be pruned, with the operation that is in the way and the share of FLOPs spent on them; and
        the smallest FLOPs ratio that can be reached. Exit code 1 if nothing can be pruned. Needs no data.""",
        "autoprune inspect resnet20 --input 3x32x32",
        "autoprune inspect mobilenet_v3_small --layers",
        "autoprune inspect my_module:build_model --input 1x28x28 --json",
    )
    parser.add_argument("model", metavar="MODEL", help="a model's name, or your own module:function")
    parser.add_argument("--layers", action="store_true", help="name every coupled layer in full")
    _add_model_options(parser)
    _add_json(parser)


def _prune(commands: Any) -> None:
    parser = _command(
        commands,
        "trials.prune",
        "prune once, without a search",
        """Run one recipe. With --task the model and data of a search space are used, and the recipe is the whole
        trial: sparsify, cut, fine-tune, measure. With a MODEL there are no data: the channels are ranked by the
        weights alone and cut, and nothing is fine-tuned. --to keeps the pruned model as an artefact.""",
        "autoprune prune --task digits_demo --method taylor --flops 0.5",
        "autoprune prune --task cifar10_resnet20 --method bn_scale --flops 0.4 \\",
        "    --set method.penalty=1e-4 --set training.images=200000 --to small",
        "autoprune prune resnet50 --method l1 --flops 0.5 --round-to 8 --to small",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a model's name, or your own module:function")
    parser.add_argument("--task", metavar="SPACE", help="model and data of this ready space or YAML file")
    parser.add_argument("--method", required=True, metavar="NAME", help="one of: autoprune methods")
    parser.add_argument("--flops", type=_ratio, metavar="R", help="FLOPs to keep, in (0, 1]")
    parser.add_argument("--params", type=_ratio, metavar="R", help="parameters to keep, in (0, 1]")
    parser.add_argument(
        "--round-to", type=_positive(int), metavar="N", help="channels of every pruned group a multiple of N, such as 8"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the recipe (default: 0)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another value of the recipe, for instance allocation.name=uniform",
    )
    parser.add_argument("--to", type=Path, metavar="OUT", help="new folder for the pruned model")
    _add_model_options(parser)
    _add_json(parser)


def _methods(commands: Any) -> None:
    parser = _command(
        commands,
        "lookup.methods",
        "the pruning methods and their hyper-parameters",
        "List every method: what it ranks channels by, its hyper-parameters with default and range, and its source.",
        "autoprune methods",
        "autoprune methods --json",
    )
    _add_json(parser)


def _spaces(commands: Any) -> None:
    parser = _command(
        commands,
        "lookup.spaces",
        "the ready search spaces",
        """List the search spaces that come with autoprune: the model and data, the methods and the budget. Each can be
        searched as it is, changed with --set, or extended: a YAML file with `extends: NAME` and what differs.""",
        "autoprune spaces",
    )
    _add_json(parser)


def _cluster(commands: Any) -> None:
    parser = _command(
        commands,
        "lookup.cluster",
        "launch files for clusters",
        """Print the file that starts a search on AWS, Google Cloud, machines of your own, Kubernetes or SLURM; the
        comment at its top says how to use it. Without a name: the list.""",
        "autoprune cluster",
        "autoprune cluster slurm > search.sbatch",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="aws, gcp, kubernetes, onprem or slurm")
    parser.add_argument("--path", action="store_true", help="print where the file is, not what is in it")


def _command(commands: Any, place: str, summary: str, description: str, *examples: str) -> argparse.ArgumentParser:
    """A subcommand; `place` is where it is done, `studies.search`."""
    home, name = place.split(".")
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description, examples=examples, prog=f"autoprune {name}"
    )
    parser.set_defaults(home=home)
    return parser


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="a study folder, written by autoprune search")


def _add_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=_positive(int), metavar="N", help="end after N trials (default: the space's)")
    parser.add_argument(
        "--minutes", type=_positive(float), metavar="M", help="end after M minutes (default: the space's)"
    )
    parser.add_argument(
        "--gpu-hours", type=_positive(float), metavar="H", help="end when all trials together have used H GPU-hours"
    )
    parser.add_argument(
        "--images", type=_positive(int), metavar="N", help="end when all trials together have trained on N images"
    )
    parser.add_argument(
        "--until", choices=("hypervolume",), help="end as well when the front has stopped to grow (budget.patience)"
    )
    _add_place(parser)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", metavar="A", help="a running Ray cluster, or auto (default: this machine alone)")
    parser.add_argument("--in-process", action="store_true", help="one trial after the other, without Ray")


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input", type=_shape, default=(3, 224, 224), metavar="CxHxW", help="shape of one image (default: 3x224x224)"
    )
    parser.add_argument(
        "--classes", type=_positive(int), metavar="N", help="outputs of a model by name (default: 1000, the library's)"
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def _shape(text: str) -> tuple[int, ...]:
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape; allowed: CxHxW, for instance 3x224x224")
    return tuple(int(part) for part in parts)


def _ratio(text: str) -> float:
    value = _number(0, 1)(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0 is out of range; allowed: (0, 1]")
    return value


def _latency(text: str) -> tuple[str, float]:
    """The name of the cost and its limit: milliseconds or, without a unit, the ratio to the dense model."""
    if text.endswith("ms"):
        return "latency_ms", _positive(float)(text.removesuffix("ms"))
    return "latency", _positive(float)(text)


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = _parse(float, text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is out of range; allowed: [{low:g}, {high:g}]")
        return value

    return read


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = _parse(kind, text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is out of range; allowed: above 0")
        return value

    return read


def _parse(kind: Callable[[str], float], text: str) -> float:
    try:
        return kind(text)
    except ValueError:
        allowed = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"{text!r} is not a number; allowed: {allowed}") from None


def _complain(message: str) -> None:
    print(f"autoprune: error: {' '.join(message.split())}", file=sys.stderr)


def _keep_traceback() -> str:
    with tempfile.NamedTemporaryFile("w", prefix="autoprune-", suffix=".txt", delete=False) as file:
        file.write(traceback.format_exc())
    return file.name

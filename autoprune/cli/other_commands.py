"""The options of commands that look at no study: of models, methods, spaces, widths and launch files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoprune.cli.options import (
    add_command,
    add_json,
    add_model_options,
    cost_ratio,
    positive,
    width_step,
)
from autoprune.recipe import AUTO


def _add_inspect(commands: Any) -> None:
    parser = add_command(
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
    add_model_options(parser)
    add_json(parser)


def _add_prune(commands: Any) -> None:
    parser = add_command(
        commands,
        "trials.prune",
        "prune once, without a search",
        """Run one recipe. With --task the model and data of a search space are used, and its training (of a range the
        middle), unless --set says otherwise; the recipe is the whole trial: sparsify, cut, fine-tune, measure. With a
        MODEL there are no data: the channels are ranked by the
        weights alone and cut, and nothing is fine-tuned. --to keeps the pruned model as an artefact.""",
        "autoprune prune --task digits_demo --method taylor --flops 0.5",
        "autoprune prune --task cifar10_resnet20 --method bn_scale --flops 0.4 \\",
        "    --set method.penalty=1e-4 --set training.images=200000 --to small",
        "autoprune prune resnet50 --method l1 --flops 0.5 --round-to 8 --to small",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a model's name, or your own module:function")
    parser.add_argument("--task", metavar="SPACE", help="model and data of this ready space or YAML file")
    parser.add_argument("--method", required=True, metavar="NAME", help="one of: autoprune methods")
    parser.add_argument("--flops", type=cost_ratio, metavar="R", help="FLOPs to keep, in (0, 1]")
    parser.add_argument("--params", type=cost_ratio, metavar="R", help="parameters to keep, in (0, 1]")
    parser.add_argument(
        "--round-to",
        type=width_step,
        default=AUTO,
        metavar="N",
        help="channels of every pruned group a multiple of N, or `auto`, widths that are fast on a CPU (default: auto)",
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
    add_model_options(parser)
    add_json(parser)


def _add_methods(commands: Any) -> None:
    parser = add_command(
        commands,
        "lookup.methods",
        "the pruning methods and their hyper-parameters",
        "List every method: what it ranks channels by, its hyper-parameters with default and range, and its source.",
        "autoprune methods",
        "autoprune methods --json",
    )
    add_json(parser)


def _add_spaces(commands: Any) -> None:
    parser = add_command(
        commands,
        "lookup.spaces",
        "the ready search spaces",
        """List the search spaces that come with autoprune: the model and data, the methods and the budget. Each can be
        searched as it is, changed with --set, or extended: a YAML file with `extends: NAME` and what differs.""",
        "autoprune spaces",
    )
    add_json(parser)


def _add_widths(commands: Any) -> None:
    parser = add_command(
        commands,
        "widths.widths",
        "times of layers by width, for widths that are fast",
        """`round_to: auto` in an allocation keeps to widths that are worth their time on a device. List the tables of
        times that come with autoprune; with --out measure one where a model will run: this machine, or the node of a
        cluster that this runs on. It takes some minutes; nothing else should run meanwhile.""",
        "autoprune widths",
        "autoprune widths --runtime onnxruntime --threads 4 --out mine.json",
        "autoprune widths --device cuda --batch 64 --out h200.json",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="measure, and write the table to this .json file")
    parser.add_argument("--device", default="cpu", help="where to measure: cpu, cuda, cuda:N, auto (default: cpu)")
    for name, text in (
        ("runtime", "what runs the model: auto, eager, graph, compile, onnxruntime or openvino (default: auto)"),
        ("dtype", "of weights and images: auto, float32, bfloat16 or float16 (default: auto)"),
    ):
        parser.add_argument(f"--{name}", default="auto", metavar="NAME", help=text)
    parser.add_argument("--batch", type=positive(int), default=1, metavar="N", help="images of a pass (default: 1)")
    parser.add_argument("--threads", type=positive(int), metavar="N", help="of the CPU (default: all cores)")
    add_json(parser)


def _add_cluster(commands: Any) -> None:
    parser = add_command(
        commands,
        "launch_files.cluster",
        "launch files for clusters",
        """Print the file that starts a search on several Ray nodes of this machine, on machines of your own, under
        SLURM, on Kubernetes, AWS or Google Cloud, or that builds the image of the nodes. --values lists what differs
        from place to place, --set says it, and the comment at the top of the file says how to use it. Without a name:
        the list.""",
        "autoprune cluster",
        "autoprune cluster slurm --values",
        "autoprune cluster slurm --set nodes=4 gpus=8 --out search.sbatch",
        "autoprune cluster kubernetes --set image=registry/me:1 --out search.yaml",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="one of the list: aws, dockerfile, gcp, ...")
    parser.add_argument("--values", action="store_true", help="list the values of the file, with their defaults")
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="NAME=VALUE", help="values that differ; repeatable"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there, a script executable, not to stdout")
    parser.add_argument("--overwrite", action="store_true", help="write it even if FILE is there already")


#: Each adds a command, in the order in which `--help` lists them.
OTHER_COMMANDS: tuple[Callable[[Any], None], ...] = (
    _add_inspect,
    _add_prune,
    _add_methods,
    _add_spaces,
    _add_widths,
    _add_cluster,
)

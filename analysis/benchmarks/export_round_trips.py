"""Exported files beside the model: twenty networks cut to half, and a model of every method, through every format.

    python -m autoprune.analysis.benchmarks.export_round_trips ROWS.jsonl --table FILE.md [--only NAME ...]

Rows are appended as they come; a second call goes on where the first was stopped. Networks have random weights (see
`zoo_weights`), models of methods those of a short trial on the digits.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoprune import methods
from autoprune.analysis.benchmarks.markdown import describe_machine, table_head, table_row, write_measured
from autoprune.analysis.benchmarks.zoo_checks import half
from autoprune.analysis.benchmarks.zoo_weights import randomise
from autoprune.engine.surgery import artifact
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.errors import AutopruneError, StudyError, first_line
from autoprune.export import formats, int8
from autoprune.export.layout import INT8, OPENVINO, PLAIN, files_of
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training
from autoprune.tasks import Task, load_task, zoo
from autoprune.trial.run import run
from autoprune.trial.shared import SharedState

Row = dict[str, Any]

#: Networks of torchvision and timm, and the image that each is built for.
NETWORKS: Mapping[str, tuple[int, int, int]] = {
    **dict.fromkeys(
        (
            *("torchvision/resnet18", "torchvision/resnet50", "torchvision/resnext50_32x4d", "torchvision/densenet121"),
            *("torchvision/vgg11_bn", "torchvision/squeezenet1_1", "torchvision/mobilenet_v2"),
            *("torchvision/mobilenet_v3_small", "torchvision/shufflenet_v2_x1_0", "torchvision/efficientnet_b0"),
            *("timm/convnext_atto", "timm/regnetx_002", "timm/seresnet18", "timm/repvgg_a0", "timm/ghostnet_050"),
            *("timm/mobilenetv4_conv_small", "timm/dla34", "timm/res2net50_14w_8s", "timm/nfnet_l0", "timm/mixnet_s"),
        ),
        (3, 64, 64),
    ),
}

#: Classes of the networks, and images that every file is compared on.
CLASSES, IMAGES = 10, 48

#: Batch and training images of a method's trial: as many steps as the method that needs most.
BATCH = 16

DIGITS = {
    "kind": "classification",
    "data": {"name": "digits", "splits": {"train": "train", "validation": "validation", "test": "test"}},
    "model": {"name": "digits_net", "train": {"images": 8000, "batch_size": 64}},
}


def of_network(name: str, folder: Path) -> Row:
    """The row of a network that is cut to half of every group."""
    shape = NETWORKS[name]
    images = torch.randn(IMAGES, *shape, generator=torch.Generator().manual_seed(0))

    def build() -> nn.Module:
        return zoo.build(name, shape, CLASSES, {}, name).eval()

    torch.manual_seed(0)
    model = randomise(build(), (images[:8],))
    graph = trace(model, images[:1])
    keep = half(graph, seed=0)
    artifact.save(folder / "artefact", prune(model, graph, keep), graph, keep)
    return compared(folder, build, images, images)


def of_method(name: str, folder: Path, task: Task) -> Row:
    """The row of the model that a short trial of a method gives."""
    steps = max(400, methods.METHODS[name].least_steps)
    training = Training(images=BATCH * steps, batch_size=BATCH, lr=0.02)
    allocation = Allocation(name="global")
    recipe = Recipe(method=MethodChoice(name=name), target=Target(flops=0.5), allocation=allocation, training=training)
    trial = run(recipe, SharedState.of(task))
    if trial.model is None:
        raise StudyError(trial.outcome.error or "the trial has no model")
    artifact.save(folder / "artefact", trial.model, trial.graph, trial.keep)
    order = torch.arange(IMAGES)
    images, _ = next(iter(task.validation.batches(order, IMAGES)))
    calibration, _ = next(iter(task.train.batches(torch.arange(512), 512)))
    return compared(folder, task.build, images, calibration)


def compared(folder: Path, build: Callable[[], nn.Module], images: Tensor, calibration: Tensor) -> Row:
    """Format -> largest difference from the model, as a share of its largest output, and how many classes are the same.

    Args:
        folder: with the artefact inside.
        build: the dense network.
        images: that files and model are compared on.
        calibration: that the ranges of INT8 are taken from.
    """
    out = folder / "out"
    formats.export(folder / "artefact", build, (images[:1],), out, info={}, also=[OPENVINO])
    int8.write_int8(out / PLAIN.onnx, out / PLAIN.int8, [(part,) for part in calibration.split(int8.AT_A_TIME)])
    files = {**files_of(formats.read_record(out), str(out)), INT8: [PLAIN.int8]}
    with torch.inference_mode():
        expected = artifact.load(folder / "artefact", model=build)(images)
        outputs = {name: run(images) for name, run in formats._load_runners(out, build, files).items()}
    scale = expected.abs().max()
    return {
        name: {
            "difference": float((found - expected).abs().max() / scale),
            "same_class": int((found.argmax(1) == expected.argmax(1)).sum()),
            "megabytes": sum((out / path).stat().st_size for path in files[name]) / 1e6,
        }
        for name, found in outputs.items()
    }


def measured(names: list[str]) -> Iterator[Row]:
    """The rows of networks and methods by name, as they come; what goes wrong is a row with the reason."""
    task: Task | None = None
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                if name in NETWORKS:
                    found = of_network(name, Path(folder))
                else:
                    task = task or load_task(DIGITS)
                    found = of_method(name, Path(folder), task)
            except AutopruneError as error:
                yield {"name": name, "error": first_line(error)}
                continue
            yield {"name": name, "images": IMAGES, "formats": found}


def page(rows: Mapping[str, Row], versions: str) -> str:
    """The measured part of the page; `versions` are those of the packages with which the rows were measured."""
    lines = [
        "# Exported files beside the model",
        "",
        f"{describe_machine()}; {versions}. `python -m autoprune.analysis.benchmarks.export_round_trips`.",
        "",
        f"Each file is loaded on its own and run on {IMAGES} images: the largest difference from the pruned model in",
        "PyTorch, as a share of its largest output, and for how many images the class is the same. Networks have",
        "random weights and lost half of every group: their classes lie close together, so INT8 may change some.",
        "Models of methods were trained on the digits for a moment; INT8 took its ranges from 512 training images.",
        "",
    ]
    for title, chosen in (("Networks", [n for n in rows if n in NETWORKS]), ("Methods", _methods_of(rows))):
        lines += [f"## {title}", "", *table_head(("model", *_COLUMNS)), *(_line(rows[name]) for name in chosen), ""]
    return "\n".join(lines)


_COLUMNS = ("artefact", "onnx", "pt2", "openvino", "same class in all four", "int8", "same class in int8")


def _methods_of(rows: Mapping[str, Row]) -> list[str]:
    return [name for name in rows if name not in NETWORKS]


def _line(row: Row) -> str:
    if "error" in row:
        return table_row((f"`{row['name']}`", row["error"], *[""] * (len(_COLUMNS) - 1)))
    found, exact = row["formats"], ("artefact", "onnx", "pt2", "openvino")
    same = min(found[name]["same_class"] for name in exact)
    differences = [f"{found[name]['difference']:.0e}" for name in exact]
    eight = found[INT8]
    count = row["images"]
    last = (f"{same} of {count}", f"{eight['difference']:.2f}", f"{eight['same_class']} of {count}")
    return table_row((f"`{row['name']}`", *differences, *last))


def read(file: Path) -> dict[str, Row]:
    """The last row of every name in a file of JSON lines."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def main() -> None:
    """Measure what is missing, write rows and table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="file of JSON lines; what is in it is not measured again")
    parser.add_argument("--table", type=Path, required=True, help="the page")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these networks and methods")
    args = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "openvino", "timm"))
    rows = read(args.rows)
    wanted = args.only or [*NETWORKS, *methods.names()]
    for row in measured([name for name in wanted if name not in rows]):
        rows[row["name"]] = row
        with args.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(_line(row), flush=True)
        write_measured(args.table, page(rows, versions))


if __name__ == "__main__":
    main()

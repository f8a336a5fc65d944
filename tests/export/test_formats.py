"""Exported files compute what the model computes, or the export fails and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from disks import full_disk
from export_info import info
from torch import Tensor, nn

from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.engine.surgery import artifact
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.errors import ArtifactError, ExportError, InputError
from autoprune.export import formats, study_model, torch_files
from autoprune.tasks import load_task
from autoprune.training.evaluate import evaluate
from autoprune.training.runtime import Runtime

EXAMPLE = (torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(5)),)
DIGITS = {
    "kind": "classification",
    "data": {"name": "digits", "splits": {"train": "train", "validation": "validation", "test": "test"}},
    "model": {"name": "digits_net", "train": {"images": 0}},
}


class Net(nn.Module):
    """Two convolutions with batch norm, 13 and 7 channels, 5 classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv1, self.bn1 = nn.Conv2d(3, 13, 3, padding=1), nn.BatchNorm2d(13)
        self.conv2, self.bn2 = nn.Conv2d(13, 7, 3), nn.BatchNorm2d(7)
        self.linear = nn.Linear(7, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(images)))
        return self.linear(torch.relu(self.bn2(self.conv2(x))).mean((2, 3)))


class OfTwoMinds(Net):
    """Takes another path for bright images: nothing that records one path can export it."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) if images.sum() > 0 else -super().forward(images)


def save_pruned(folder: Path, factory: Callable[[], nn.Module], example: tuple[Tensor]) -> nn.Module:
    """An artefact of the factory's model with the first channel of every group gone; returns the pruned model."""
    model = factory().eval()
    graph = trace(model, example)
    keep = Keep.of({group.id: range(1, group.size) for group in graph.prunable})
    pruned = prune(model, graph, keep)
    artifact.save(folder, pruned, graph, keep, info={"flops": cost(graph, keep).flops})
    return pruned.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A folder with every file, and the model they hold."""
    folder = tmp_path_factory.mktemp("export")
    pruned = save_pruned(folder / "artefact", Net, EXAMPLE)
    formats.export(folder / "artefact", Net, EXAMPLE, folder / "out", info=info())
    return folder / "out", pruned


def test_every_file_is_there(exported: tuple[Path, nn.Module]) -> None:
    names = {file.name for file in exported[0].iterdir()}

    assert names == {"model.safetensors", "model.json", "model.onnx", "model.pt2", "export.json", "README.md"}


@pytest.mark.parametrize("size", [1, 2, 11])
@pytest.mark.parametrize("name", ["artefact", "onnx", "pt2"])
def test_every_file_computes_what_the_model_computes(exported: tuple[Path, nn.Module], name: str, size: int) -> None:
    folder, model = exported
    images = torch.randn(size, 3, 9, 9, generator=torch.Generator().manual_seed(size))
    run = formats._load_runners(folder, Net, formats.read_record(folder)["files"])[name]

    with torch.inference_mode():
        torch.testing.assert_close(run(images), model(images), rtol=1e-4, atol=1e-5)


def test_the_record_states_the_difference_of_every_file(exported: tuple[Path, nn.Module]) -> None:
    record = formats.read_record(exported[0])

    assert set(record["relative_error"]) == {"artefact", "onnx", "pt2"}
    assert record["relative_error"]["artefact"] == 0
    assert 0 <= max(record["relative_error"].values()) < formats.TOLERANCE
    assert record["input"] == [3, 9, 9]
    assert record["outcome"]["accuracy"] == 0.9137


def test_the_card_says_what_the_model_is(exported: tuple[Path, nn.Module]) -> None:
    card = (exported[0] / "README.md").read_text()

    for fact in (
        "92.11 %",
        "91.37 %",
        "52.8%",
        "651,975",
        "`conv1` | 13 | 12",
        "train[-500:]",
        '"seed": 0',
        "0.1, 0.2, 0.3",
    ):
        assert fact in card


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_pruned(tmp_path / "artefact", Net, EXAMPLE)

    formats.export(tmp_path / "artefact", Net, EXAMPLE, tmp_path / "out", info={})

    assert capfd.readouterr() == ("", "")


def test_a_file_of_another_model_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_pruned(tmp_path / "artefact", Net, EXAMPLE)
    write = torch_files.write_program

    def write_another(model: nn.Module, example: tuple[Tensor], path: Path) -> None:
        changed = artifact.load(tmp_path / "artefact", model=Net)
        with torch.no_grad():
            changed.get_parameter("linear.bias")[2] += 1e-3
        write(changed, example, path)

    monkeypatch.setattr(torch_files, "write_program", write_another)

    with pytest.raises(ExportError, match="differs from the model"):
        formats.export(tmp_path / "artefact", Net, EXAMPLE, tmp_path / "out", info={})
    assert [path.name for path in tmp_path.iterdir()] == ["artefact"]


def test_a_model_that_cannot_be_exported_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    save_pruned(tmp_path / "artefact", Net, EXAMPLE)  # traced by its simple sister: same tensors, same names

    with pytest.raises(ExportError, match=r"torch\.export"):
        formats.export(tmp_path / "artefact", OfTwoMinds, EXAMPLE, tmp_path / "out" / "deeper", info={})
    assert [path.name for path in tmp_path.iterdir()] == ["artefact"]


def test_outputs_that_are_not_finite_are_no_agreement() -> None:
    worst = formats._worst_error(lambda images: torch.full((len(images), 5), torch.nan), Net().eval(), EXAMPLE)

    with pytest.raises(ExportError, match="onnx"):
        formats._check_errors({"onnx": worst})


def test_a_file_that_ignores_its_batch_is_found_out() -> None:
    model = Net().eval()
    worst = formats._worst_error(lambda images: model(images[:1].expand_as(images)), model, EXAMPLE)

    assert worst > formats.TOLERANCE


@pytest.mark.parametrize("make", ["folder", "file"])
def test_what_exists_is_not_touched(tmp_path: Path, make: str) -> None:
    out = tmp_path / "out"
    if make == "folder":
        out.mkdir()
        (out / "mine").write_text("kept")
    else:
        out.write_text("kept")

    with pytest.raises(InputError, match="already exists"):
        formats.export(tmp_path / "artefact", Net, EXAMPLE, out, info={})
    assert (out / "mine" if make == "folder" else out).read_text() == "kept"


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))

    with pytest.raises(InputError, match=r"onnxruntime not installed; run: pip install 'autoprune\[onnx\]'"):
        formats.export(tmp_path, Net, EXAMPLE, tmp_path / "out", info={})


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2", "export.json"])
def test_a_torn_file_is_said_to_be_one(exported: tuple[Path, nn.Module], tmp_path: Path, name: str) -> None:
    torn = tmp_path / "torn"
    shutil.copytree(exported[0], torn)
    (torn / name).write_bytes((torn / name).read_bytes()[:97])

    with pytest.raises(ArtifactError, match=name):
        _ = formats._load_runners(torn, Net, formats.read_record(torn)["files"])


def test_verify_scores_every_file_on_the_validation_split(tmp_path: Path) -> None:
    task = load_task(DIGITS)
    pruned = save_pruned(tmp_path / "artefact", task.build, task.example())
    formats.export(tmp_path / "artefact", task.build, task.example(), tmp_path / "out", info={"task": DIGITS})
    expected = evaluate(pruned, task.validation, task, Runtime())

    assert formats.verify(tmp_path / "out", task) == {"artefact": expected, "onnx": expected, "pt2": expected}


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx", "model.pt2"])
@pytest.mark.parametrize("harm", ["changed", "torn", "gone"])
def test_verify_refuses_a_file_that_is_not_the_one_that_was_exported(
    exported: tuple[Path, nn.Module], tmp_path: Path, name: str, harm: str
) -> None:
    harmed = tmp_path / "harmed"
    shutil.copytree(exported[0], harmed)
    content = (harmed / name).read_bytes()
    (harmed / name).write_bytes(content[:97] if harm == "torn" else content[:-1] + bytes([content[-1] ^ 1]))
    if harm == "gone":
        (harmed / name).unlink()
    says = "cannot be read: No such file" if harm == "gone" else "not the file that was exported"

    with pytest.raises(ArtifactError, match=f"{name}: {says}"):
        formats.verify(harmed, load_task(DIGITS))


def test_every_file_is_scored_and_the_card_says_so(tmp_path: Path) -> None:
    task = load_task(DIGITS)
    save_pruned(tmp_path / "artefact", task.build, task.example())
    formats.export(
        *(tmp_path / "artefact", task.build, task.example(), tmp_path / "out"),
        info={"task": DIGITS},
        also=["int8"],
        task=task,
    )
    record, card = formats.read_record(tmp_path / "out"), (tmp_path / "out" / "README.md").read_text()
    scores = record["scores"]

    assert scores == formats.verify(tmp_path / "out", task)
    assert list(scores) == ["artefact", "onnx", "pt2", "int8"]
    assert f"| int8 | model.int8.onnx | {record['relative_error']['int8']:.1e} | {100 * scores['int8']:.2f} % |" in card
    assert record["relative_error"]["int8"] > formats.TOLERANCE
    assert "`model.int8.onnx` runs in the same way:" in card


def test_an_export_may_go_without_scores(tmp_path: Path) -> None:
    task = load_task(DIGITS)
    save_pruned(tmp_path / "artefact", task.build, task.example())
    formats.export(
        *(tmp_path / "artefact", task.build, task.example(), tmp_path / "out"), info={}, task=task, scored=False
    )

    assert formats.read_record(tmp_path / "out")["scores"] == {}
    assert "Then each was scored" not in (tmp_path / "out" / "README.md").read_text()


MINE = """
import pathlib, torch

def build():
    assert pathlib.Path("mine.txt").is_file(), "there is no mine.txt here"
    return torch.nn.Sequential(torch.nn.Conv2d(1, 13, 3), torch.nn.Flatten(), torch.nn.Linear(468, 10))
"""


def test_an_export_is_verified_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("project", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "project" / "verified_elsewhere.py").write_text(MINE)
    (tmp_path / "project" / "mine.txt").write_text("found from here alone")
    monkeypatch.chdir(tmp_path / "project")
    spec = {**DIGITS, "model": {"factory": "verified_elsewhere:build", "train": {"images": 0}}}
    task = load_task(spec)
    save_pruned(tmp_path / "artefact", task.build, task.example())
    formats.export(tmp_path / "artefact", task.build, task.example(), "runs/out", info={"task": spec})
    expected = formats.verify("runs/out", task)
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert study_model.verify("../project/runs/out") == expected
    assert Path.cwd() == tmp_path / "elsewhere"
    (tmp_path / "project" / "mine.txt").unlink()
    with pytest.raises(InputError, match=r"there is no mine\.txt here"):
        study_model.verify("../project/runs/out")


@pytest.mark.parametrize("room", [3_000, 8_000, 20_000])
def test_a_full_disk_ends_an_export_in_order(room: int, tmp_path: Path) -> None:
    """There is no room for the artefact, for the ONNX file, for the exported program."""
    save_pruned(tmp_path / "artefact", Net, EXAMPLE)

    with pytest.raises(InputError, match="out: cannot write: File too large; allowed: a disk with"), full_disk(room):
        formats.export(tmp_path / "artefact", Net, EXAMPLE, tmp_path / "out", info={})
    assert [path.name for path in tmp_path.iterdir()] == ["artefact"]

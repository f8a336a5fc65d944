"""The programs of a model card are whole: copied out, they run with plain onnxruntime and plain torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cards import programs_of, run_program
from export_info import info
from torch import Tensor, nn

from autoprune.engine.keep import Keep
from autoprune.engine.surgery import artifact
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.export import formats

MOST_LINES = 20
EXAMPLE = torch.randn(1, 3, 9, 7, generator=torch.Generator().manual_seed(5))


class Net(nn.Module):
    """13 channels, 5 classes, of images that need not be square."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.linear = nn.Conv2d(3, 13, 3), nn.Linear(13, 5, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(torch.relu(self.conv(images)).mean((2, 3)))


class Pair(Net):
    """Two inputs of different sizes, two outputs by name."""

    def forward(self, near: Tensor, far: Tensor) -> dict[str, Tensor]:
        return {"near": super().forward(near), "far": super().forward(far) * 2}


def export(folder: Path, factory: type[nn.Module], example: tuple[Any, ...], **facts: Any) -> tuple[Path, nn.Module]:
    model = factory().eval()
    graph = trace(model, example)
    keep = Keep.of({group.id: range(1, group.size) for group in graph.prunable})
    pruned = prune(model, graph, keep)
    artifact.save(folder / "artefact", pruned, graph, keep)
    formats.export(folder / "artefact", factory, example, folder / "out", info={**info(), **facts})
    return folder / "out", pruned.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    return export(tmp_path_factory.mktemp("card"), Net, (EXAMPLE,))


@pytest.mark.parametrize(("library", "loaded"), [("onnxruntime", "np.load"), ("torch", "torch.from_numpy")])
def test_stored_pixels_become_what_the_model_says_of_them(
    exported: tuple[Path, nn.Module], library: str, loaded: str
) -> None:
    """`export_info` has means of 0.1, 0.2, 0.3, deviations of 0.4, 0.5, 0.6 and pixels up to 255."""
    folder, model = exported
    colours = np.random.default_rng(7).integers(0, 256, (11, 1, 1, 3)).astype(np.uint8)
    pixels = np.broadcast_to(colours, (11, 9, 7, 3))
    mean, std = (torch.tensor(values)[:, None, None] for values in ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]))
    expected = model((torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2) / 255 - mean) / std).argmax(1)
    np.save(folder / "pixels.npy", pixels)
    code = programs_of((folder / "README.md").read_text())[library]
    given = 'np.load("pixels.npy")'
    if library == "torch":
        code, given = f"import numpy as np\n{code}", f"{loaded}({given})"

    printed = run_program(code, folder, pixels=given)

    assert len(set(expected.tolist())) > 1
    assert printed == ["(11, 5)", str(expected.numpy()) if library == "onnxruntime" else str(expected)]


@pytest.mark.parametrize("library", ["onnxruntime", "torch"])
def test_a_program_is_short_and_runs_as_it_stands(exported: tuple[Path, nn.Module], library: str) -> None:
    folder, _ = exported
    code = programs_of((folder / "README.md").read_text())[library]

    assert len(code.splitlines()) <= MOST_LINES
    assert "autoprune" not in code
    assert run_program(code, folder)[0] == "(2, 5)"


@pytest.mark.parametrize(("library", "shapes"), [("onnxruntime", "(2, 5) (2, 5)"), ("torch", "(2, 5)")])
def test_a_model_of_several_inputs(tmp_path: Path, library: str, shapes: str) -> None:
    folder, _ = export(tmp_path, Pair, (EXAMPLE, EXAMPLE[..., :5]), pixels={})
    code = programs_of((folder / "README.md").read_text())[library]

    assert "(2, 3, 9, 5)" in code or "2, 3, 9, 5" in code
    assert run_program(code, folder)[0] == shapes


def test_a_model_without_facts_on_pixels_takes_what_training_gave_it(tmp_path: Path) -> None:
    folder, _ = export(tmp_path, Net, (EXAMPLE,), pixels={})
    code = programs_of((folder / "README.md").read_text())["onnxruntime"]

    assert "np.zeros((2, 3, 9, 7), np.float32)]  # yours, normalised as in training" in code
    assert run_program(code, folder)[0] == "(2, 5)"

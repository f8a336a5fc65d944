"""The benchmark of image files: every side reads every file, and the page says how fast."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from autoprune.analysis.benchmarks import image_folder_speed
from autoprune.analysis.benchmarks.image_folder_speed import draw_files, page, sides_of


def test_every_side_reads_a_file(tmp_path: Path) -> None:
    files = draw_files(tmp_path, 3, 375, 500)
    sides = sides_of(files)

    pixels, label = sides["ours"](1)
    assert (pixels.shape, pixels.dtype, int(label)) == ((224, 224, 3), torch.uint8, 0)
    assert sides["usual"](1).shape == (3, 224, 224)
    assert sides["decoding alone"](1).shape == (3, 375, 500)


def test_the_page_says_how_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_folder_speed, "measure", lambda files, rounds: {"ours": 10.0 * len(files) + rounds})
    monkeypatch.setattr(image_folder_speed, "SIZES", {(40, 48): 1.0, (80, 96): 0.5})
    monkeypatch.setattr(sys, "argv", ["bench", "--files", "4", "--rounds", "7", "--out", str(tmp_path / "page.md")])
    image_folder_speed.main()
    written = (tmp_path / "page.md").read_text()

    assert "| ours | 47 | 27 |" in written
    assert "| 48 x 40, " in written
    assert "| usual | 3 | 5 |" in page({"small": {"usual": 3.1}, "large": {"usual": 4.9}})

"""The front for a paper: light, of a column's width, the same for the same study."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import rmse_study

from autoprune.analysis.report.paper_figure import write_figure
from autoprune.analysis.report.peers import Peer, PeerPoint
from autoprune.errors import InputError
from autoprune.study.folder import Study, load_study


def test_svg(study: Study, tmp_path: Path) -> None:
    path = write_figure(study, tmp_path / "front.svg")
    root = ET.fromstring(path.read_text())

    assert (root.get("width"), root.get("height")) == ("244.8pt", "194.4pt")  # 3.4 by 2.7 inches
    assert "fill: #ffffff" in path.read_text()
    assert "prefers-color-scheme" not in path.read_text()
    assert path.read_bytes() == write_figure(study, tmp_path / "again.svg").read_bytes()


def test_pdf_holds_its_fonts_as_outlines_that_papers_take(tmp_path: Path) -> None:
    study = load_study(rmse_study.write(tmp_path / "trees", finalists=True).path)
    peer = Peer(name="theirs", points=(PeerPoint(name="p", metric=2.0, costs={"flops": 0.3}),))
    found = write_figure(study, tmp_path / "front.pdf", [peer]).read_bytes()

    assert re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+)", found) == [(b"244.8", b"194.4")]
    assert b"/Type3" not in found
    assert b"/TrueType" in found or b"/Type42" in found or b"/CIDFontType2" in found


def test_another_kind_of_file(study: Study, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"--figure: unknown kind of figure .*front\.png'; allowed: a name in \.svg or \.pdf"
    ):
        write_figure(study, tmp_path / "front.png")


def test_without_matplotlib(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(InputError, match="matplotlib is not installed; allowed: pip install matplotlib"):
        write_figure(study, tmp_path / "front.svg")
    assert not (tmp_path / "front.svg").exists()

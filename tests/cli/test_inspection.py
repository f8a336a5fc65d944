"""`autoprune inspect`: what it counts by hand, how it reads at 80 columns, what it does when nothing can be pruned."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commands import works
from nets import Concat, Depthwise, Grouped, image
from torch import nn

from autoprune.cli import parser
from autoprune.cli.inspection import fit_names, graph_facts, page_lines
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.tracing.trace import trace

Capture = pytest.CaptureFixture[str]
MODULE = """
from torch import nn
def small(): return nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 5, 3))
def nothing(): return nn.Sequential(nn.Flatten(), nn.Linear(27, 5))
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder but for the models of `MODULE`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inspected_nets.py").write_text(MODULE)
    return tmp_path


def pages(graph: ChannelGraph, width: int, *, full: bool = False) -> list[str]:
    return list(page_lines({"model": "net", "input": [2, 3, 9, 9], **graph_facts(graph)}, width, full=full))


def test_units_channels_and_shares_of_a_grouped_convolution() -> None:
    found = graph_facts(trace(Grouped(groups=3, offset=5), image()))
    groups = {group["group"]: group for group in found["groups"]}

    sizes = {name: (g["units"], g["channels_per_unit"], g["channels"]) for name, g in groups.items()}
    assert sizes == {"before.0": (5, 3, 15), "grouped.0": (7, 3, 21), "after.0": (11, 1, 11)}
    assert groups["before.0"]["layers"] == ["before.0", "before.1", "grouped.0"]
    # 2 FLOPs and 2 images: 9*9 places of 3*15, 7*7 places of 9 weights to each of 5 inputs of 21 filters, 7*7 of 21*11,
    # and 11 * 5 in the head
    before, grouped, after, head = (4 * n for n in (81 * 3 * 15, 49 * 9 * 5 * 21, 49 * 21 * 11, 11 * 5))
    assert found["dense"]["flops"] == before + grouped + after + head
    assert groups["before.0"]["flops_share"] == pytest.approx((before + grouped) * 4 / 5 / found["dense"]["flops"])
    (frozen,) = found["frozen"]
    assert (frozen["group"], frozen["channels"]) == ("head", 5)
    assert frozen["flops_share"] == pytest.approx(head / found["dense"]["flops"])


def test_a_frozen_group_is_worth_what_is_spent_on_making_and_reading_it() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 7, 1), nn.Conv2d(7, 11, 1)

        def forward(self, x):  # type: ignore[no-untyped-def]
            y = self.first(x)
            return self.second(y), y.cumsum(1)

    found = graph_facts(trace(Net(), image()))
    shares = {group["group"]: group["flops_share"] for group in found["frozen"]}

    assert shares == {"first": 1.0, "second": pytest.approx(7 * 11 / (3 * 7 + 7 * 11))}
    assert found["frozen"][0]["why"] == "cumsum over the channels"
    assert found["groups"] == []


@pytest.mark.parametrize("width", [72, 80, 120])
@pytest.mark.parametrize("net", [Concat, Depthwise, Grouped])
def test_lines_fit_the_terminal_and_every_group_has_one(net: type[nn.Module], width: int) -> None:
    graph = trace(net(), image())
    lines = pages(graph, width)

    assert max(map(len, lines)) <= width
    starts = [line.split()[0] for line in lines if line]
    assert [name for name in starts if name in {group.id for group in graph.groups}] == [g.id for g in graph.groups]
    assert ("at once" in " ".join(lines)) == (net is Grouped)


def test_coupled_layers_are_named_as_seen_from_the_group() -> None:
    lines = {line.split()[0]: line for line in pages(trace(Concat(), image()), 120) if line}

    # beside the group's own layer; of another parent; beginning like it
    assert lines["layers.0.0"].endswith("  .1 …1.0 …2.0 head")
    assert re.search(r"layers\.2\.0 .* 7 .*%  \.1 head$", lines["layers.2.0"])


def test_all_layers_in_full_on_request() -> None:
    graph = trace(Concat(), image())
    text = "\n".join(pages(graph, 80, full=True))

    assert "    layers.0.0, layers.0.1, layers.1.0, layers.2.0, head\n" in text
    assert "layers.0.1" not in "\n".join(pages(graph, 80))


@pytest.mark.parametrize(
    ("names", "room", "text"),
    [
        ([], 12, ""),
        ([".bn1", ".conv2"], 12, ".bn1 .conv2"),
        ([".bn1", ".conv2"], 10, ".bn1 +1"),
        (["…denselayer2.norm1", "x", "y"], 14, "…yer2.norm1 +2"),
        (["a.very.long.name"], 12, "…y.long.name"),
    ],
)
def test_names_that_do_not_fit_are_counted(names: list[str], room: int, text: str) -> None:
    assert fit_names(names, room) == text
    assert len(text) <= room


def test_reasons_are_wrapped_and_never_cut() -> None:
    class Net(nn.Sequential):
        def forward(self, x):  # type: ignore[no-untyped-def]
            return super().forward(x).cumsum(1)

    graph = trace(Net(nn.Conv2d(3, 7, 1)), image())
    (group,) = graph.groups

    assert group.frozen is not None
    beside, below = (pages(graph, width) for width in (80, 40))
    assert beside[4] == f"0          0         7  100.0%  {group.frozen}"
    assert below[5:7] == ["0          0         7  100.0%", f"    {group.frozen}"]


def test_an_id_that_is_too_long_has_a_line_of_its_own() -> None:
    net = nn.Sequential()
    inner = nn.Sequential(nn.Conv2d(3, 7, 1), nn.Conv2d(7, 5, 1))
    for name in ("a_module_with_a_long_name", "another_with_a_long_name"):
        inner, outer = nn.Sequential(), inner
        inner.add_module(name, outer)
    net.add_module("body", inner)
    lines = pages(trace(net, image()), 72)

    start = lines.index("body.another_with_a_long_name.a_module_with_a_long_name.0")
    assert re.fullmatch(r" +0 +7 +85\.7% +\d+\.\d%  \.1", lines[start + 1])
    assert max(map(len, lines)) <= 72


@pytest.mark.slow
def test_torchvision_networks_for_segmentation_and_detection_are_known_by_name(capsys: Capture) -> None:
    for name, classes in (("lraspp_mobilenet_v3_large", 3), ("torchvision/ssdlite320_mobilenet_v3_large", 5)):
        argv = ["inspect", name, "--input", "3x64x64", "--classes", str(classes), "--json"]
        assert parser.main(argv) == 0
        found = json.loads(capsys.readouterr().out)
        assert len(found["groups"]) > 20
        assert any(group["channels"] % classes == 0 for group in found["frozen"])


def test_what_a_pyramid_and_heads_share_is_one_group(capsys: Capture) -> None:
    assert parser.main(["inspect", "small_retinanet", "--input", "1x32x32", "--classes", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    groups = {group["group"]: (group["channels"], set(group["layers"])) for group in found["groups"]}

    # every level of the pyramid, and what both heads read of all levels
    channels, shared = groups["backbone.pyramid.layer_blocks.0.0"]
    assert channels == 32
    assert {f"backbone.pyramid.layer_blocks.{level}.0" for level in range(3)} < shared
    assert {f"head.{kind}_head.conv.0.0" for kind in ("classification", "regression")} < shared
    # what is added from level to level
    _, lateral = groups["backbone.pyramid.inner_blocks.0.0"]
    assert {f"backbone.pyramid.inner_blocks.{level}.0" for level in range(3)} < lateral
    # boxes and classes are the task's: 3 anchors with 3 classes and 4 corners each
    frozen = {layer: group["channels"] for group in found["frozen"] for layer in group["layers"]}
    assert frozen["head.classification_head.cls_logits"] == 9
    assert frozen["head.regression_head.bbox_reg"] == 12


def test_our_unet_is_known_by_name(capsys: Capture) -> None:
    assert parser.main(["inspect", "unet", "--input", "1x32x32", "--classes", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert sorted(group["channels"] for group in found["groups"]) == [16] * 4 + [32] * 4 + [64] * 2
    assert [group["channels"] for group in found["frozen"]] == [3]


def test_json_holds_all_of_it(capsys: Capture) -> None:
    assert parser.main(["inspect", "inspected_nets:small", "--input", "3x9x9", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert found["model"] == "inspected_nets:small"
    assert found["input"] == [1, 3, 9, 9]
    assert list(found["held_up_by"]) == ["0", "2"]
    assert found["smallest"]["flops"] == pytest.approx(1 / 7)
    assert found["groups"][0]["layers"] == ["0", "2"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_model_of_which_nothing_can_go_is_shown_and_fails(options: list[str], capsys: Capture) -> None:
    assert parser.main(["inspect", "inspected_nets:nothing", "--input", "3x3x3", *options]) == 2
    out, error = capsys.readouterr()

    assert "reaches the model's output" in out
    assert error == ("autoprune: error: nothing of this model can be pruned (1: reaches the model's output)\n")


def test_pruning_it_fails_the_same_way(capsys: Capture) -> None:
    argv = ["prune", "inspected_nets:nothing", "--input", "3x3x3", "--method", "l1", "--flops", "0.5", "--to", "small"]

    assert parser.main(argv) == 2
    assert "nothing of this model can be pruned" in capsys.readouterr().err
    assert not Path("small").exists()


def test_inspect_by_hand(capsys: Capture) -> None:
    facts = json.loads(works(capsys, "inspect", "lenet5", "--input", "1x28x28", "--classes", "7", "--json"))

    groups = {group["group"]: group for group in facts["groups"]}
    assert [groups[name]["channels"] for name in ("conv1", "conv2", "ip1")] == [20, 50, 500]
    # 2 FLOPs each: 24*24 places, 25 weights, 20 filters; 8*8, 25*20, 50; 800 * 500; 500 * 7
    conv1, conv2, ip1, ip2 = 2 * 576 * 25 * 20, 2 * 64 * 500 * 50, 2 * 800 * 500, 2 * 500 * 7
    assert facts["dense"]["flops"] == conv1 + conv2 + ip1 + ip2
    assert groups["conv1"]["flops_share"] == pytest.approx((conv1 + conv2) * 19 / 20 / facts["dense"]["flops"])
    assert [entry["channels"] for entry in facts["frozen"]] == [7]

"""A pruned model survives the disk, and nothing else is taken for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nets import NETS, Chain, image, randomised
from torch import nn

from autoprune.engine.keep import Keep
from autoprune.engine.surgery import artifact
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.errors import ArtifactError, InputError


def saved(folder: Path, name: str = "Chain") -> nn.Module:
    net = randomised(NETS[name]())
    graph = trace(net, image())
    keep = Keep.of({group.id: range(1, group.size) for group in graph.prunable})
    pruned = prune(net, graph, keep)
    artifact.save(folder, pruned, graph, keep, info={"accuracy": 0.5})
    return pruned


@pytest.mark.parametrize("name", sorted(NETS))
def test_what_is_loaded_computes_what_was_saved(tmp_path: Path, name: str) -> None:
    pruned = saved(tmp_path / "model", name)
    loaded = artifact.load(tmp_path / "model", NETS[name])

    with torch.no_grad():
        assert torch.equal(pruned(image()), loaded(image()))
    assert not loaded.training


def test_biases_that_folding_added_are_restored(tmp_path: Path) -> None:
    net = randomised(nn.Sequential(nn.Conv2d(3, 7, 1), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 5, 1, bias=False)))
    graph = trace(net, image())
    keep = Keep.of({"0": range(2, 7)})  # channels 0 and 1 emit constants above zero
    pruned = prune(net, graph, keep)
    artifact.save(tmp_path / "model", pruned, graph, keep)
    loaded = artifact.load(
        tmp_path / "model",
        lambda: nn.Sequential(nn.Conv2d(3, 7, 1), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 5, 1, bias=False)),
    )

    assert pruned[3].bias is not None
    assert ["3.bias"] == artifact.describe(tmp_path / "model")["added"]
    assert torch.equal(pruned(image()), loaded(image()))


def test_the_description_is_json_with_widths_and_info(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    description = json.loads((tmp_path / "model" / "model.json").read_text())

    assert {"first.0": 6, "second.0": 10} == description["widths"]
    assert {"accuracy": 0.5} == description["info"]
    assert {"model.json", "model.safetensors"} == {file.name for file in (tmp_path / "model").iterdir()}


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)

    with pytest.raises(ArtifactError, match="checksum differs"):
        artifact.load(tmp_path / "model", Chain)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda: Chain(a=5), r"'first.0.weight': the factory's model has \(5, 3, 3, 3\).*7 entries along dimension 0"),
        (lambda: Chain(a=9), r"tensor 'first.0.weight': the factory's model has \(9, 3, 3, 3\)"),
        (lambda: nn.Sequential(nn.Conv2d(3, 7, 3)), "the factory's model has nothing"),
        (lambda: nn.Sequential(*[Chain()]), "the factory's model has nothing"),
    ],
)
def test_another_model_is_refused(tmp_path: Path, factory, message: str) -> None:
    saved(tmp_path / "model")

    with pytest.raises(ArtifactError, match=message):
        artifact.load(tmp_path / "model", factory)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "model")

    class Headless(Chain):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Identity()

    with pytest.raises(ArtifactError, match=r"tensor 'head.(bias|weight)'"):
        artifact.load(tmp_path / "model", Headless)


def test_nothing_is_overwritten_and_nothing_is_left_behind(tmp_path: Path) -> None:
    saved(tmp_path / "model")

    with pytest.raises(InputError, match="exists and is not empty"):
        saved(tmp_path / "model")
    net = Chain()
    graph = trace(net, image())
    with pytest.raises(ValueError, match="Out of range float"):
        artifact.save(tmp_path / "other", net, graph, Keep.all(), info={"accuracy": float("nan")})
    assert ["model"] == [file.name for file in tmp_path.iterdir()]


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match="cannot write"):
        saved(tmp_path / "file" / "model")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no readable description"):
        artifact.load(tmp_path, Chain)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["weights_sha256"], None),
        (["decomposed"], 3),
        (["decomposed"], {"first.0": "x"}),
        (["cuts"], []),
        (["cuts", "first.0.weight", "0", "kept"], [1, 2, 3, 4, 5, 99]),
        (["cuts", "first.0.weight", "0", "kept"], "123456"),
        (["cuts", "first.0.weight", "0"], 7),
        (["cuts", "first.0.weight"], {"x": {"size": 7, "kept": [1]}}),
        (["attributes"], {"nowhere": {"out_channels": 3}}),
        (["attributes"], 3),
        (["added"], ["nowhere.bias"]),
        (["added"], 3),
    ],
)
def test_a_description_that_was_changed_is_one_line(tmp_path: Path, path: list[str], value: object) -> None:
    saved(tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    description = json.loads(file.read_text())
    place = description
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(description))

    with pytest.raises(ArtifactError) as found:
        artifact.load(tmp_path / "model", Chain)
    assert len(found.value.line()) <= 300


@pytest.mark.parametrize("key", ["weights_sha256", "decomposed", "cuts", "attributes", "added"])
def test_a_description_that_lacks_something_is_one_line(tmp_path: Path, key: str) -> None:
    saved(tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    file.write_text(json.dumps({name: value for name, value in json.loads(file.read_text()).items() if name != key}))

    with pytest.raises(ArtifactError, match=r"model\.json: the description was changed: KeyError"):
        artifact.load(tmp_path / "model", Chain)


@pytest.mark.parametrize("kept", [0, 1, 97, -1])
@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_torn_file_is_one_line(tmp_path: Path, name: str, kept: int) -> None:
    saved(tmp_path / "model")
    file = tmp_path / "model" / name
    file.write_bytes(file.read_bytes()[: kept - (name == "model.json" and kept < 0)])

    with pytest.raises(ArtifactError, match=name):
        artifact.load(tmp_path / "model", Chain)


def test_what_a_factory_raises_is_its_own(tmp_path: Path) -> None:
    saved(tmp_path / "model")

    def broken() -> nn.Module:
        raise KeyError("of the user's code")

    with pytest.raises(KeyError, match="of the user's code"):
        artifact.load(tmp_path / "model", broken)

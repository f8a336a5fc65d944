"""Checkpoints as people have them: under keys, with prefixes, several in one file; and what no checkpoint is."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from autoprune.errors import InputError, ModelError
from autoprune.tasks import load_task
from autoprune.tasks.weight_files import find, load_weights


class Net(nn.Module):
    def __init__(self, channels: int = 3, classes: int = 5) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(channels, 7, 3), nn.BatchNorm2d(7), nn.Linear(7, classes)


class Wrapper(nn.Module):
    """A network that calls a part of itself `module`."""

    def __init__(self) -> None:
        super().__init__()
        self.module, self.other = nn.Linear(3, 5), nn.Linear(3, 5)


def state(prefix: str = "", seed: int = 7, **changes: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {prefix + name: tensor for name, tensor in Net(**changes).state_dict().items()}


def loaded(file: Path, content: Any, key: str | None = None) -> tuple[Net, str]:
    torch.save(content, file)
    model = Net()
    return model, load_weights(model, file, key)


PREFIXES = (
    *("module.", "model.", "_orig_mod.", "net.", "backbone.", "module.model.", "_orig_mod.module.", "model._orig_mod."),
    *("student.encoder.", "module._orig_mod.net."),
)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_is_found_and_said(prefix: str, tmp_path: Path) -> None:
    model, place = loaded(tmp_path / "a.pt", {"state_dict": state(prefix), "epoch": 3})

    assert torch.equal(model.conv.weight, state()["conv.weight"])
    assert place == f"under 'state_dict' without the prefix {prefix!r}"


@pytest.mark.parametrize(
    ("keys", "content"),
    [
        ("", state()),
        ("model_state_dict", {"model_state_dict": state(), "optimizer_state_dict": {"state": {}, "param_groups": []}}),
        ("params_ema", {"params_ema": state()}),
        ("checkpoint.model.state_dict", {"checkpoint": {"model": {"state_dict": state()}}}),
        ("model", {"model": state(), "args": argparse.Namespace(lr=0.1), "best": np.float64(0.9)}),
        ("model", {"model": state(), "path": Path("here")}),
    ],
)
def test_weights_are_found_under_any_keys(keys: str, content: Any, tmp_path: Path) -> None:
    model, place = loaded(tmp_path / "a.ckpt", content)

    assert torch.equal(model.head.bias, state()["head.bias"])
    assert place == (f"under {keys!r}" if keys else "")


def test_what_stands_beside_the_network_is_said(tmp_path: Path) -> None:
    _, place = loaded(tmp_path / "a.pt", {**state("model."), "criterion.weight": torch.zeros(5)})

    assert place == "without the prefix 'model.', leaving out 1 others such as 'criterion.weight'"


TWO = (
    ({"model": state(), "ema": state(seed=11)}, "model", "ema"),
    ({"state_dict": state(), "state_dict_ema": state(seed=11)}, "state_dict", "state_dict_ema"),
    ({**state("student."), **state("teacher.", seed=11)}, "student", "teacher"),
    ({"model": {"params": state("net."), "params_ema": state("net.", seed=11)}}, "model.params", "model.params_ema"),
)


@pytest.mark.parametrize(("content", "first", "second"), TWO)
def test_several_that_fit_are_asked_for(content: Any, first: str, second: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"under '{first}\S*' and under '{second}\S*' fit .*checkpoint_key: {first}"):
        loaded(tmp_path / "a.pt", content)
    chosen = [loaded(tmp_path / "a.pt", content, key)[0].conv.weight for key in (first, second)]

    assert torch.equal(chosen[0], state()["conv.weight"])
    assert torch.equal(chosen[1], state(seed=11)["conv.weight"])
    with pytest.raises(ModelError, match=f"nothing under checkpoint_key 'emma'; allowed: {first}"):
        loaded(tmp_path / "a.pt", content, "emma")


def test_equal_ones_need_no_choice(tmp_path: Path) -> None:
    assert loaded(tmp_path / "a.pt", {"model": state(), "ema": state()})[1] == "under 'model'"


def test_only_one_that_fits_needs_no_choice(tmp_path: Path) -> None:
    assert loaded(tmp_path / "a.pt", {"gan": {"d.weight": torch.zeros(3)}, "net": state()})[1] == "under 'net'"


def test_a_part_that_is_called_like_a_wrapper_is_none(tmp_path: Path) -> None:
    model = Wrapper()
    torch.save({f"module.{name}": 0 * tensor for name, tensor in model.state_dict().items()}, tmp_path / "a.pt")
    place = load_weights(model, tmp_path / "a.pt")

    assert place == "without the prefix 'module.'"
    assert not model.module.weight.any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (state(classes=1000), r"'head.weight' is \(1000, 7\), .* \(5, 7\): 1000 outputs, such as classes, in"),
        (state(channels=1), r"'conv.weight' is \(7, 1, 3, 3\), the model needs \(7, 3, 3, 3\); allowed: a checkpoint"),
        ({"a.weight": torch.zeros(3)}, "of another network: it has 'a.weight', the model 'conv.weight', 'conv.b"),
        ({"model": {**state(), "extra": torch.zeros(1)}}, r"tensor 'extra' is not in the model \(1 such\); allowed"),
        ({name: t.int() for name, t in state().items()}, r"'conv.weight' is torch\.int32; allowed: torch\.float32"),
        ({"state": {}, "param_groups": [{}]}, r"the state of an optimiser and no weights \(keys state, param_groups\)"),
        ({}, "a mapping without tensors; allowed: safetensors, or a torch file"),
        (torch.zeros(3), "a Tensor and no tensors by name"),
        (None, "a NoneType and no tensors by name"),
        (Net(), r"it holds a pickled \S+\.Net, which would run code; allowed: .*torch\.save\(model\.state_dict\(\)"),
        ({"model": Net(), "ema": None}, "it holds a pickled"),
        ({"a": np.zeros(3)}, "it holds a pickled numpy"),
    ],
)
def test_what_does_not_fit(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        loaded(tmp_path / "a.pt", content)

    assert str(caught.value).startswith(f"{tmp_path}/a.pt: ")
    assert "\x1b" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


def script(file: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(3, 5), torch.zeros(1, 3)), file)


def program(file: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(3, 5), (torch.zeros(2, 3),)), file)


def cut_short(file: Path) -> None:
    torch.save(state(), file)
    file.write_bytes(file.read_bytes()[:900])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.pt", b"", "the file is empty; allowed: safetensors"),
        ("a.safetensors", b"", "the file is empty"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS.*`git lfs pull`"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        ("a.onnx", b"\x08\x08\x12\x07pytorch", "an ONNX model"),
        ("a.pt", b"<!DOCTYPE html>", "a web page"),
        ("a.pt", b"\x1f\x8b\x08", "compressed by gzip"),
        ("a.pt", b"{}", "no file of torch"),
        ("a.safetensors", b'\x40\0\0\0\0\0\0\0{"a"', "cut short or damaged"),
        ("a.npz", lambda file: np.savez(file, a=np.zeros(3)), "an archive of NumPy arrays"),
        ("a.pt", script, "a TorchScript archive; allowed: the weights in it"),
        ("a.pt2", program, "an exported program"),
        ("a.pt", cut_short, "cut short or damaged"),
    ],
)
def test_files_of_other_kinds(name: str, write: bytes | Callable[[Path], None], message: str, tmp_path: Path) -> None:
    if isinstance(write, bytes):
        (tmp_path / name).write_bytes(write)
    else:
        write(tmp_path / name)

    with pytest.raises(ModelError, match=f"{name}: .*{message}"):
        load_weights(Net(), tmp_path / name)


def test_safetensors_are_known_by_their_content(tmp_path: Path) -> None:
    save_file(state("model."), tmp_path / "a.bin")

    assert load_weights(Net(), tmp_path / "a.bin") == "without the prefix 'model.'"


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/model.safetensors").write_text("")

    with pytest.raises(ModelError, match=r"is a folder; it holds model\.safetensors; allowed: a file"):
        find(str(tmp_path / "weights"), "task.model.checkpoint")
    with pytest.raises(ModelError, match="no checkpoint ''"):
        find("", "task.model.checkpoint")


def test_a_task_says_where_its_weights_were_and_takes_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_DATA", str(tmp_path))
    model = {"name": "digits_net", "checkpoint": "two.pt", "checkpoint_key": "ema"}
    spec = {"data": {"name": "digits"}, "model": model}
    plain = load_task({**spec, "model": {"name": "digits_net", "train": {"images": 0}}})
    dense = plain.model().state_dict()
    torch.save({"model": {f"model.{n}": 0 * t for n, t in dense.items()}, "ema": dense}, tmp_path / "two.pt")
    task = load_task(spec)

    assert task.weights_remark(task.model()) == "The weights in two.pt are those under 'ema'."
    assert all(torch.equal(tensor, dense[name]) for name, tensor in task.model().state_dict().items())
    assert plain.weights_remark(plain.model()) == ""
    with pytest.raises(InputError, match=r"task\.model\.checkpoint_key: there is no checkpoint"):
        load_task({**spec, "model": {"name": "digits_net", "checkpoint_key": "ema"}})

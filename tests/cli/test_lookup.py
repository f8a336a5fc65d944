"""methods, spaces: the lists are complete."""

from __future__ import annotations

import json

from commands import Capture, works


def test_methods_and_spaces(capsys: Capture) -> None:
    by_name = {row["name"]: row for row in json.loads(works(capsys, "methods", "--json"))}
    spaces = {row["space"] for row in json.loads(works(capsys, "spaces", "--json"))}

    assert {"random", "l1", "l2", "fpgm", "bn_scale", "taylor"} <= set(by_name)
    assert by_name["bn_scale"]["params"]["penalty"]["low"] == 0
    assert by_name["bn_scale"]["params"]["penalty"]["search"] == {"float": [1e-5, 1e-2], "log": True}
    assert by_name["greg1"]["params"]["press"]["search"] == {"choice": ["norms", "filters"]}
    assert {"digits_demo", "cifar10_resnet20", "cifar10_resnet56", "cifar100_vgg19", "imagenet_resnet50"} <= spaces
    assert "digits_net" in works(capsys, "spaces")


def test_the_list_of_methods_fits_a_terminal_and_says_everything(capsys: Capture) -> None:
    out = works(capsys, "methods")
    rows = json.loads(works(capsys, "methods", "--json"))
    words = " ".join(out.split())

    assert max(len(line) for line in out.splitlines()) <= 80
    assert "0.001 [0, 1] float [1e-05, 0.01], log" in words
    for row in rows:
        title = f"{row['name']}: {row['summary']} {row['source']}"
        assert [name for name in row["params"] if f" {name} " not in words.partition(title)[2]] == []

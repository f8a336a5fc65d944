"""aws and gcp: against Ray's own schema and Ray's own reading of such a file. Nothing here speaks to a cloud."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from autoprune.cli.launch_files import launch_files

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
NEEDED = {"aws": {"ami": "ami-0123456789"}, "gcp": {"project": "my-project"}}


def filled(cloud: str, **values: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(launch_files()[cloud].fill(NEEDED[cloud] | values))
    return config


@pytest.mark.parametrize("cloud", NEEDED)
def test_rays_schema_and_its_own_checks(cloud: str) -> None:
    config = filled(cloud)
    jsonschema.validate(config, json.loads((resources.files("ray.autoscaler") / "ray-schema.json").read_text()))
    prepared = prepare_config(config)  # with Ray's defaults for this cloud, as `ray up` does

    validate_config(prepared)
    assert config["head_node_type"] in config["available_node_types"]
    assert prepared["docker"]["image"] == "rayproject/ray:2.60.0-py311-gpu"


@pytest.mark.parametrize("cloud", NEEDED)
def test_rays_schema_refuses_a_key_that_it_does_not_know(cloud: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match="'max_worker' was unexpected"):
        validate_config(filled(cloud) | {"max_worker": 2})


@pytest.mark.parametrize("cloud", NEEDED)
def test_the_values_come_where_they_belong(cloud: str) -> None:
    config = filled(cloud, nodes="7", region="there", image="mine:1", machine="big", head="small", disk="13")
    head, gpu = config["available_node_types"]["head"], config["available_node_types"]["gpu"]
    machine = {"aws": "InstanceType", "gcp": "machineType"}[cloud]

    assert (config["max_workers"], gpu["min_workers"], gpu["max_workers"]) == (7, 7, 7)
    assert (config["provider"]["region"], config["docker"]["image"]) == ("there", "mine:1")
    assert (head["node_config"][machine], gpu["node_config"][machine]) == ("small", "big")
    assert head["resources"] == {"CPU": 0}
    assert yaml.safe_dump(gpu["node_config"]).count("13") == 1


@pytest.mark.parametrize("cloud", NEEDED)
def test_all_that_speaks_of_ray_says_the_same_mode_and_mounted_is_what_is_read(cloud: str) -> None:
    config = filled(cloud)
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]

    assert all(line == "ray stop" or "RAY_AUTH_MODE=token" in line for line in starts)
    assert "/home/ray/.ray/auth_token" in config["file_mounts"]
    assert "AUTOPRUNE_DATA=$HOME/data" in config["worker_start_ray_commands"][1]
    assert "/home/ray/data" in config["file_mounts"]
    assert "cp -r ~/source /tmp/source" in config["setup_commands"][0]
    assert "/home/ray/source" in config["file_mounts"]


def test_the_image_has_the_ray_and_a_python_of_the_project(root: Path) -> None:
    (ray,) = re.findall(r"^ray==(.*)$", (root / "constraints.txt").read_text(), re.MULTILINE)
    defaults = [launch_files()[cloud].values["image"].default for cloud in NEEDED]

    assert {*defaults, launch_files()["dockerfile"].values["base"].default} == {f"rayproject/ray:{ray}-py311-gpu"}

"""kubernetes: the RayJob against KubeRay's own schema, and its entrypoint as KubeRay and Ray hand it on."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from autoprune.cli.launch_files import launch_files
from autoprune.cli.parser import build_parser

#: `openAPIV3Schema` of version v1 in KubeRay 1.7.0's ray-operator/config/crd/bases/ray.io_rayjobs.yaml (Apache-2.0),
#: without descriptions and rules in CEL. Kubernetes' schema of pods is a part of it.
SCHEMA = "tests/data/kuberay_rayjob_1.7.0.json.gz"


def filled(**values: str) -> dict[str, Any]:
    job: dict[str, Any] = yaml.safe_load(launch_files()["kubernetes"].fill(values))
    return job


def strict(schema: Any) -> Any:
    """A schema that refuses unknown fields, as `kubectl apply` does: a schema of Kubernetes' lets them through."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


@pytest.fixture(scope="module")
def schema() -> Any:
    root = Path(__file__).resolve().parents[2]
    return strict(json.loads(gzip.decompress((root / SCHEMA).read_bytes())))


def templates(job: dict[str, Any]) -> list[dict[str, Any]]:
    """What is said about a pod, of the head and of the workers."""
    cluster = job["spec"]["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


@pytest.mark.parametrize("values", [{}, {"nodes": "7", "gpus": "0", "image": "host:5000/a/b:1", "memory": "13Gi"}])
def test_it_follows_kuberays_schema(values: dict[str, str], schema: Any) -> None:
    jsonschema.validate(filled(**values), schema)


def test_the_schema_refuses_what_kubernetes_would(schema: Any) -> None:
    job = filled()
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["volumeMount"] = []

    with pytest.raises(jsonschema.ValidationError, match="'volumeMount' was unexpected"):
        jsonschema.validate(job, schema)
    with pytest.raises(jsonschema.ValidationError, match="'two' is not of type 'integer'"):
        jsonschema.validate(filled() | {"spec": {**filled()["spec"], "backoffLimit": "two"}}, schema)


def test_the_values_come_where_they_belong() -> None:
    job = filled(nodes="7", gpus="3", cpus="11", image="mine:1", claim="volume", name="job")
    head, worker = templates(job)
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]

    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (7, 7, 7)
    assert {pod["containers"][0]["image"] for pod in (head, worker)} == {"mine:1"}
    assert worker["containers"][0]["resources"]["limits"] == {"cpu": "11", "memory": "16Gi", "nvidia.com/gpu": "3"}
    assert job["metadata"]["name"] == "job"
    assert "/data/runs/job/study.yaml" in job["spec"]["entrypoint"]


def test_every_mount_is_of_a_volume_and_the_data_are_on_one() -> None:
    for pod in templates(filled(claim="volume")):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (container,) = pod["containers"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}

        assert set(mounts.values()) == set(volumes)
        assert volumes[mounts["/data"]]["persistentVolumeClaim"] == {"claimName": "volume"}
        assert {entry["name"]: entry["value"] for entry in container["env"]}["AUTOPRUNE_DATA"] == "/data"


def test_the_commands_exist() -> None:
    commands = re.findall(r"autoprune ([^;']*)", filled()["spec"]["entrypoint"])

    assert [build_parser().parse_args(command.split()).command for command in commands] == ["resume", "search"]


@pytest.mark.parametrize("again", [False, True])
def test_the_entrypoint_survives_the_shells_between_kuberay_and_autoprune(again: bool, tmp_path: Path) -> None:
    # KubeRay writes the entrypoint behind `ray job submit ... --` into a line for bash; Ray joins its words again with
    # `list2cmdline` and runs that by a shell.
    entrypoint = filled(name="job")["spec"]["entrypoint"].replace("/data/runs", str(tmp_path))
    command = subprocess.list2cmdline(shlex.split(entrypoint))
    (tmp_path / "autoprune").write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    (tmp_path / "autoprune").chmod(0o755)
    (tmp_path / "job").mkdir()
    if again:
        (tmp_path / "job/study.yaml").touch()
    environment = {**os.environ, "PATH": os.pathsep.join([str(tmp_path), os.environ["PATH"]])}
    ran = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=True)

    words = ran.stdout.split("|")[:-1]
    if again:
        assert words == ["resume", f"{tmp_path}/job", "--address", "auto"]
    else:
        options = ["--minutes", "120", "--set", "resources.gpus_per_trial=1"]
        assert words == ["search", "cifar10_resnet20", *options, "--address", "auto", "--out", f"{tmp_path}/job"]


def test_versions_are_those_of_the_project(root: Path) -> None:
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    (ray,) = re.findall(r"^ray==(.*)$", (root / "constraints.txt").read_text(), re.MULTILINE)

    assert filled()["spec"]["rayClusterSpec"]["rayVersion"] == ray
    assert launch_files()["kubernetes"].values["image"].default == f"autoprune:{version}"

"""Every tracker keeps the contract, with a backend of files."""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from autoprune.search.tracking.mlflow import MLflow
from autoprune.search.tracking.registry import BUILT_IN
from autoprune.search.tracking.tensorboard import TensorBoard
from autoprune.search.tracking.wandb import WandB
from autoprune.study.tracker import Tracker
from autoprune.testing import TrackerContract
from autoprune.testing.tracker_contract import METRIC


def needs(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"the extra `{package}` is not installed")


def test_every_tracker_of_ours_has_a_class_here() -> None:
    ours = {f"{kind.__module__}:{kind.__name__}" for kind in (MLflow, TensorBoard, WandB)}

    assert ours == set(BUILT_IN.values())


@needs("tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own and protobuf's
class TestTensorBoard(TrackerContract):
    def tracker(self) -> Tracker:
        return TensorBoard()

    def numbers(self, folder: Path, run: str) -> Mapping[str, float]:
        events = self.events(folder, run)
        tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("final/")]
        return {tag.removeprefix("final/"): events.Scalars(tag)[-1].value for tag in tags}

    def rungs(self, folder: Path, run: str) -> Mapping[int, float]:
        events = self.events(folder, run)
        known = METRIC.name in events.Tags()["scalars"]
        return {point.step: point.value for point in events.Scalars(METRIC.name)} if known else {}

    def parameters(self, folder: Path, run: str) -> Mapping[str, object]:
        from tensorboard.plugins.hparams import metadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        content = self.events(folder, run).SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
        values = HParamsPluginData.FromString(content).session_start_info.hparams
        return {name: getattr(value, value.WhichOneof("kind")) for name, value in values.items()}

    def events(self, folder: Path, run: str) -> Any:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        if not (place := folder / "tensorboard" / run).is_dir():
            raise KeyError(run)
        return EventAccumulator(str(place)).Reload()


@needs("mlflow")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
class TestMLflow(TrackerContract):
    def tracker(self) -> Tracker:
        return MLflow()

    def numbers(self, folder: Path, run: str) -> Mapping[str, float]:
        found = self.run(folder, run)[1].data.metrics
        return {name.replace("rmse_5", METRIC.name): value for name, value in found.items()}

    def rungs(self, folder: Path, run: str) -> Mapping[int, float]:
        client, found = self.run(folder, run)
        return {point.step: point.value for point in client.get_metric_history(found.info.run_id, "rmse_5")}

    def parameters(self, folder: Path, run: str) -> Mapping[str, object]:
        return self.run(folder, run)[1].data.params

    def run(self, folder: Path, run: str) -> Any:
        """A client, and the run of that name."""
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}")
        experiment = client.get_experiment_by_name(folder.name)
        runs = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
        return client, runs[run]


@needs("wandb")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
class TestWandB(TrackerContract):
    def tracker(self) -> Tracker:
        return WandB(mode="offline")

    def numbers(self, folder: Path, run: str) -> Mapping[str, float]:
        return {name: value for name, value in self.summary(folder, run).items() if isinstance(value, float | int)}

    def rungs(self, folder: Path, run: str) -> Mapping[int, float]:
        logged = [
            self.values(record.history.item) for record in self.records(folder, run) if record.HasField("history")
        ]
        return {int(line["_step"]): line[METRIC.name] for line in logged}

    def parameters(self, folder: Path, run: str) -> Mapping[str, object]:
        (begun,) = (record.run for record in self.records(folder, run) if record.HasField("run"))
        return self.values(begun.config.update)

    def summary(self, folder: Path, run: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for record in self.records(folder, run):
            if record.HasField("summary"):
                found |= self.values(record.summary.update)
        return found

    def values(self, items: Any) -> dict[str, Any]:
        return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}

    def records(self, folder: Path, run: str) -> list[Any]:
        """The records of the run of that name."""
        from wandb.proto.wandb_internal_pb2 import Record

        for file in folder.glob("wandb/offline-run-*/*.wandb"):
            found = [Record.FromString(record) for record in wandb_records(file.read_bytes())]
            if any(record.HasField("run") and record.run.display_name == run for record in found):
                return found
        raise KeyError(run)


def wandb_records(content: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format: blocks of 32 KiB, a checksum, length and kind before each part."""
    place, record = 7, b""  # after the file's own header
    while place < len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _checksum, length, kind = struct.unpack_from("<IHB", content, place)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in {1, 4}:  # whole, or the last part
            yield record
            record = b""

"""Studies and artefacts that an earlier version wrote are read as they were: `tests/data/` holds one of each.

The study is a search of 6 trials on digits, with early stopping and finalists. The artefact is the network below, whose
second convolution was decomposed before the cut; a removed channel left a bias in it and in the third.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import autoprune as ap
from autoprune.analysis.report.frames import write_pareto_csv
from autoprune.engine.surgery import artifact
from autoprune.methods import build
from autoprune.recipe import Recipe
from autoprune.study import finalists, pareto
from autoprune.study.config import StudyConfig
from autoprune.study.folder import Study
from autoprune.study.metric import ACCURACY
from autoprune.study.outcome import Proposal

DATA = Path(__file__).parents[1] / "data"

#: Trial, how it ended, accuracy, FLOPs ratio, key of its recipe; in the order in which they ended.
ENDED = [
    (0, "completed", 0.9833333333333333, 1.0, "4f1e98dd7ff9"),
    (1, "completed", 0.9966666666666667, 0.4996218549398657, "4d23c70bcc5c"),
    (3, "completed", 0.99, 0.7320127462554415, "f352c178ee20"),
    (4, "completed", 0.33666666666666667, 0.31008586659780124, "921ed59d0036"),
    (5, "stopped", None, 0.2066086229371111, "1c263c783b78"),
    (2, "stopped", None, 0.5646097727440419, "29b87f458f37"),
]
LOGS = ("proposals", "outcomes", "paused", "finalists")


@pytest.fixture
def study() -> Study:
    return ap.load_study(DATA / "study").study


def test_outcomes_have_the_numbers_they_had(study: Study) -> None:
    found = [(o.id, o.status, o.accuracy, o.flops_ratio, o.recipe.key()) for o in study.outcomes]

    assert found == ENDED
    assert [(o.id, [rung.share for rung in o.rungs], len(o.legs)) for o in study.paused] == [
        (2, [0.0], 1),
        (5, [0.0], 1),
        (2, [0.0, 0.3], 2),
    ]
    assert study.outcomes[2].notes == {"groups_at_zero": 0.0}
    assert study.unfinished() == ()


def test_recipes_are_those_that_the_keys_stand_for(study: Study) -> None:
    methods = [proposal.recipe.method.name for proposal in study.proposals]
    allocations = [proposal.recipe.to_dict()["allocation"]["name"] for proposal in study.proposals]
    kinds = {key: recipe for proposal in study.proposals if (recipe := proposal.recipe) for key in [recipe.key()]}

    assert methods == ["dense", "random", "l1", "hinge", "bn_scale", "l1"]
    assert allocations == ["global", "global", "ratios", "global", "features", "ratios"]
    assert list(kinds) == [key for *_, key in sorted(ENDED)]
    assert all(Recipe.from_dict(recipe.to_dict()) == recipe for recipe in kinds.values())
    assert [build(recipe.method).name for recipe in kinds.values()] == methods


@pytest.mark.parametrize("log", LOGS)
def test_every_line_is_written_as_it_was(study: Study, log: str) -> None:
    lines = getattr(study.folder, log).read_text().splitlines()

    assert lines == [entry.to_json() for entry in getattr(study, log)]
    assert len(lines) == {"proposals": 6, "outcomes": 6, "paused": 3, "finalists": 2}[log]


def test_the_front_its_volume_and_its_table_are_the_same(study: Study, tmp_path: Path) -> None:
    assert study.objectives == ("accuracy", "flops", "latency")
    assert [member.id for member in study.front] == [4, 1]
    assert study.metric == ACCURACY
    volume = pareto.hypervolume(pareto.points(study.front, study.tradeoff), pareto.reference(study.tradeoff))
    assert volume == pytest.approx(0.06994336680121982, rel=1e-12)
    assert pareto.hypervolume(pareto.points(study.outcomes)) == pytest.approx(0.5625206673184289, rel=1e-12)
    assert write_pareto_csv(study, tmp_path / "pareto.csv").read_bytes() == study.folder.pareto.read_bytes()


def test_finalists_are_the_same(study: Study) -> None:
    rows = finalists.rows(study)

    assert [(row["trial"], row["validation"], row["test"], row["against_dense"]) for row in rows] == [
        (1, 0.9966666666666667, 0.9866666666666667, 0.0),
        (0, 0.9833333333333333, 0.9866666666666667, 0.0),
    ]
    assert [outcome.recipe.key() for outcome in study.finalists] == ["4d65a35203af", "2419cf013cd1"]


def test_the_space_file_in_the_folder_is_read_and_written_as_it_was(study: Study) -> None:
    plain = yaml.safe_load(study.folder.config.read_text())
    wanted = {key: plain[key] for key in StudyConfig.__dataclass_fields__ if key in plain}
    config = StudyConfig.from_plain(wanted, check_method=build)

    # What has come since: it knew of no metric but accuracy, of no limit on that, of no trackers, and of one process.
    assert set(StudyConfig.__dataclass_fields__) - set(wanted) == {"metric", "trackers"}
    constraints = {**wanted["constraints"], "metric": None}
    resources = {**wanted["resources"], "processes_per_trial": None, "memory_per_trial": None}
    since = {"metric": {}, "trackers": [], "constraints": constraints, "resources": resources}
    assert config.to_plain() == {**wanted, **since}
    assert (config.cascade.keep, config.constraints.limits()) == (0.6, {"params": 0.9})


def test_a_proposal_holds_what_the_sampler_said_of_it(study: Study) -> None:
    chosen: Proposal = study.proposals[4]

    assert chosen.distributions["target.flops"]["attributes"]["high"] == 0.8
    assert chosen.params["target.flops"] == chosen.recipe.target.flops == 0.31707162646140796


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 7, 3, bias=False),
        nn.BatchNorm2d(7),
        nn.ReLU(),
        nn.Conv2d(7, 11, 3, bias=False),
        nn.BatchNorm2d(11),
        nn.ReLU(),
        nn.Conv2d(11, 5, 1, bias=False),
        nn.Flatten(),
        nn.Linear(5 * 4 * 4, 3),
    )


def test_an_artefact_computes_what_it_did() -> None:
    images = ((torch.arange(2 * 192) % 17 - 8) / 8).reshape(2, 3, 8, 8)
    with torch.no_grad():
        outputs = ap.load(DATA / "artefact", model=network)(images)

    assert outputs.flatten().tolist() == pytest.approx(
        [-0.3240174353, -0.1479543895, -0.0463120863, -0.3266944587, -0.1660817266, -0.0529211089], abs=1e-6
    )


def test_an_artefact_is_described_as_it_was() -> None:
    described = artifact.describe(DATA / "artefact")

    assert described["widths"] == {"0": 5, "3.basis": 4, "3.mix": 8, "6": 5}
    assert described["keep"]["3.basis"] == [0, 1, 2, 4]
    assert (described["decomposed"], described["added"]) == ({"3": 11}, ["3.basis.bias", "6.bias"])
    assert described["info"]["accuracy"] == 0.5

"""`search` and `resume` with a real task: small digits, in this process and once on Ray; and every refusal."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from autoprune.engine.surgery import artifact
from autoprune.errors import InputError, ModelError
from autoprune.search import resume, search
from autoprune.study.config import StudyConfig
from autoprune.study.folder import load_study
from autoprune.study.front_timings import NOT_KEPT
from autoprune.study.pareto import front
from autoprune.tasks import load_task

#: The demo, smaller: a dense model that has seen 6,400 images, recipes with 256.
SMALL = [
    "task.model.train={images: 6400, batch_size: 64, lr: 0.1}",
    "space.training.images=256",
    "space.target.flops={float: [0.3, 0.8]}",
    "sampler.startup=3",
    "budget={trials: 5}",
]


@pytest.fixture(scope="module", autouse=True)
def data_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOPRUNE_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return search(
        "digits_demo", out=tmp_path_factory.mktemp("runs") / "new" / "study", overrides=SMALL, in_process=True
    )


def test_a_study_says_what_it_was_made_of(study):
    config = study.config

    assert set(config["dense"]) == {"accuracy", "flops", "params", "activations", "images"}
    assert config["dense"]["accuracy"] > 0.5
    assert {"id", "size", "stage", "frozen"} == set(config["groups"][0])
    assert torch.__version__.startswith(config["versions"]["torch"])
    known = {key: item for key, item in config.items() if key in StudyConfig.__dataclass_fields__}
    assert StudyConfig.from_plain(known).budget.trials == 5


def test_every_outcome_is_complete_and_meets_its_target(study):
    assert [outcome.id for outcome in study.outcomes] == list(range(5))
    assert {outcome.status for outcome in study.outcomes} == {"completed"}
    for outcome in study.outcomes[1:]:
        assert outcome.flops_ratio == pytest.approx(outcome.recipe.target.flops, abs=0.01)
    assert study.outcomes[0].flops_ratio == 1


def test_models_on_the_front_are_timed_when_the_search_has_ended(study):
    for member in front(study.outcomes):
        timing = study.study.timings[member.id]
        assert timing.error == ""
        assert timing.how.startswith("eager, float32, batch 1, cpu")
        assert (member.latency_ratio, member.latency_ms) == (timing.ratio, timing.ms)
        assert 0 < member.latency_low <= member.latency_ratio <= member.latency_high


def test_models_on_the_front_load_with_the_factory(study):
    task = load_task(study.config["task"])
    for member in front(study.outcomes):
        model = artifact.load(study.folder.models / str(member.id), task.build)
        assert model(*task.example()).shape == (1, 10)
        info = artifact.describe(study.folder.models / str(member.id))["info"]
        assert info["outcome"]["id"] == member.id


def test_resume_adds_to_the_study(study, tmp_path):
    shutil.copytree(study.folder.path, tmp_path, dirs_exist_ok=True)
    lines = study.folder.outcomes.read_text().splitlines(keepends=True)
    (tmp_path / "outcomes.jsonl").write_text("".join(lines[:4]))
    after = resume(tmp_path, trials=6, in_process=True)

    assert [outcome.id for outcome in after.outcomes] == list(range(6))
    assert after.outcomes[:4] == study.outcomes[:4]
    assert after.outcomes[4].recipe == study.outcomes[4].recipe
    assert after.outcomes[4].widths == study.outcomes[4].widths


def test_resume_of_a_finished_study_changes_nothing(study):
    assert resume(study.folder.path, in_process=True) == study


def test_resume_refuses_another_model(study, tmp_path):
    config = {**study.config, "groups": study.config["groups"][1:]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config))

    with pytest.raises(InputError, match="other channel groups"):
        resume(tmp_path, trials=6, in_process=True)


#: The digits, from a function that notes each call.
NOTED = """
from pathlib import Path
from autoprune.tasks.sources import digits_by_part

def arrays():
    with Path("calls").open("a") as file:
        file.write("called ")
    parts = digits_by_part()
    kinds = (("images", 0), ("labels", 1))
    return {f"{part}_{kind}": parts[part][place] for part in parts for kind, place in kinds}
"""


@pytest.mark.slow
def test_the_same_search_on_ray_whose_workers_get_the_data_from_the_driver(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "noted.py").write_text(NOTED)
    own = ["task.data={function: 'noted:arrays', splits: {validation: validation}}", "resources.workers=2"]
    study = search("digits_demo", out=tmp_path / "study", overrides=[*SMALL, *own], trials=6)

    assert (tmp_path / "calls").read_text() == "called "
    assert sorted(outcome.id for outcome in study.outcomes) == list(range(6))
    assert {outcome.status for outcome in study.outcomes} == {"completed"}
    assert {outcome.worker.split(":")[1] for outcome in study.outcomes}.isdisjoint({str(os.getpid())})
    assert {path.name for path in study.folder.models.iterdir()} == {"0", "1"} | {
        str(m.id) for m in front(study.outcomes)
    }
    assert {number for number, timing in study.study.timings.items() if not timing.error} == {
        m.id for m in front(study.outcomes)
    }


@pytest.mark.slow
def test_three_objectives_a_constraint_and_a_cascade_on_ray(tmp_path):
    """Params may be half at most; targets go to 0.8 of the FLOPs, so some recipes break it and others do not."""
    wishes = [
        "objectives=[accuracy, flops, latency]",
        "constraints={params: 0.5}",
        "latency={batch: 7}",
        "cascade.keep=0.5",
        "resources.workers=2",
        "sampler.startup=6",
    ]
    study = search("digits_demo", out=tmp_path / "study", overrides=[*SMALL, *wishes], trials=11)
    pruned = [outcome for outcome in study.outcomes if outcome.recipe.method.name != "dense"]
    broken = [outcome for outcome in pruned if outcome.infeasible]
    completed = [outcome for outcome in pruned if outcome.completed]

    assert sorted(outcome.id for outcome in study.outcomes) == list(range(11))
    assert not [outcome.error for outcome in pruned if outcome.status == "failed"]
    assert all(o.params_ratio > 0.5 and o.error.startswith("constraint: params 0.") and not o.rungs for o in broken)
    # Times of the front, measured alone, may put somebody back on it whose model is gone: then nothing is known of it.
    gone = {number for number, timing in study.study.timings.items() if timing.error == NOT_KEPT}
    timed = [outcome for outcome in completed if outcome.id not in gone]
    assert all(o.params_ratio <= 0.5 for o in completed)
    assert all(o.latency_ms > 0 and o.latency_ratio > 0 for o in timed)
    assert timed
    assert broken
    assert completed
    best = front(study.outcomes, study.study.tradeoff)
    assert {member.id for member in best} <= {outcome.id for outcome in completed}
    assert {"latency", "finetune"} <= set(best[0].seconds)


def other_shape(folder):
    save_file({"stem.weight": torch.zeros(2, 2)}, folder / "other.safetensors")
    return folder / "other.safetensors"


REFUSALS = [
    (["space.target.flops=1.5"], {}, "space.target.flops: 1.5 is out of range; allowed: (0, 1]"),
    (["space.method=l3"], {}, "unknown method 'l3'"),
    (["space.trainin.lr=3"], {}, "there is no 'trainin'"),
    (["space.target.flops=1e-6"], {}, "space.target: flops: 1e-06 cannot be reached"),
    (["task.data.name=cifar10"], {}, "cifar10"),
    (["task.model={name: digits_net, checkpoint: gone.safetensors}"], {}, "gone.safetensors"),
    (["task.model.name=digit_net"], {}, "unknown model 'digit_net'"),
    ([], {"trials": 0}, "trials: 0 is out of range"),
    ([], {"minutes": -1.0}, "minutes: -1.0 is out of range"),
    (["budget={}"], {}, "no end is given"),
]


@pytest.mark.parametrize(("overrides", "options", "what"), REFUSALS)
def test_refusals_come_before_anything_is_written(tmp_path, overrides, options, what):
    with pytest.raises(InputError) as caught:
        search("digits_demo", out=tmp_path / "a" / "study", overrides=[*SMALL, *overrides], in_process=True, **options)

    assert what in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    spec = {"name": "digits_net", "checkpoint": str(other_shape(tmp_path))}
    with pytest.raises(InputError, match=r"other\.safetensors"):
        search(
            "digits_demo", out=tmp_path / "study", overrides=[*SMALL, f"task.model={json.dumps(spec)}"], in_process=True
        )

    assert not (tmp_path / "study").exists()


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("7")
    with pytest.raises(InputError, match="exists already; allowed: a new or empty folder"):
        search("digits_demo", out=tmp_path, overrides=SMALL, in_process=True)

    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("7")
    for out in (tmp_path / "file", tmp_path / "file" / "study"):
        with pytest.raises(InputError, match=r"exists already|cannot (be written|write)"):
            search("digits_demo", out=out, overrides=SMALL, in_process=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(InputError, match="cannot write"):
        search("digits_demo", out=tmp_path / "study", overrides=SMALL, in_process=True)


def test_a_file_system_that_nobody_may_write_is_refused():
    with pytest.raises(InputError, match="cannot write"):
        search("digits_demo", out=Path("/proc/autoprune"), overrides=SMALL, in_process=True)


def test_two_searches_in_one_folder_are_refused(study):
    from autoprune.search.study_lock import lock

    with lock(study.folder), pytest.raises(InputError, match="a search is running in this folder"):
        resume(study.folder.path, trials=9, in_process=True)


ONE_LAYER = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


def test_the_front_of_an_earlier_study_comes_first_and_is_written_down(study, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(study.folder.path, old)
    # A resume builds the plan anew: that it needs no recipe of the old study shows in its folder being gone.
    options = {"overrides": [*SMALL, "sampler.startup=8"], "in_process": True}
    search("digits_demo", out=tmp_path / "new", trials=3, sampler="random", warm_start=old, **options)
    shutil.rmtree(old)
    after = resume(tmp_path / "new", trials=4, in_process=True)

    first = after.config["sampler"]["first"]
    params = {proposal.id: proposal.params for proposal in study.proposals}
    assert first == [params[member.id] for member in front(study.outcomes)][: len(first)]
    assert 1 <= len(first) <= 4
    assert after.config["sampler"]["name"] == "random"
    began = [after.proposals[number].params for number in (2, 3)]
    assert began[: len(first)] == first[:2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warm_start": "nowhere"}, "no study in 'nowhere'"),
        ({"sampler": "tpee"}, r"unknown sampler 'tpee' \(did you mean 'tpe'\?\)"),
        ({"overrides": ["sampler.first=[{method: l9}]"]}, r"sampler\.first\[0\]\.method: 'l9' is not in the space"),
    ],
)
def test_a_start_that_makes_no_sense_leaves_nothing_behind(tmp_path, options, message):
    overrides = [*SMALL, *options.pop("overrides", [])]
    with pytest.raises(InputError, match=message):
        search("digits_demo", out=tmp_path / "study", overrides=overrides, in_process=True, **options)

    assert not (tmp_path / "study").exists()


def test_a_model_of_which_nothing_can_go_ends_the_search_with_the_reason(tmp_path, monkeypatch):
    (tmp_path / "one_layer.py").write_text(ONE_LAYER)
    monkeypatch.chdir(tmp_path)
    model = "task.model={factory: 'one_layer:build', train: {images: 64, batch_size: 32}}"
    with pytest.raises(ModelError, match="nothing of this model can be pruned"):
        search("digits_demo", out=tmp_path / "study", overrides=[*SMALL, model], in_process=True)

    assert not (tmp_path / "study").exists()


def test_resume_needs_a_study(tmp_path):
    with pytest.raises(InputError, match="no study in"):
        resume(tmp_path)


def test_load_study_reads_what_search_returned(study):
    assert load_study(study.folder.path) == study.study

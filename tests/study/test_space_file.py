"""Space files: found by name or path, merged over what they extend, changed by overrides."""

import pytest
from spaces import FILE

from autoprune import methods
from autoprune.errors import InputError
from autoprune.study.config import Budget, StudyConfig
from autoprune.study.space_file import load_space, merge, names


@pytest.mark.parametrize("name", names())
def test_ready_spaces_are_valid_and_round_trip(name):
    config = load_space(name, check_method=methods.build, find_method=methods.find)

    assert StudyConfig.from_yaml(config.to_yaml(), check_method=methods.build) == config
    assert config.budget != Budget()
    assert len(config.space.methods()) >= 5


def test_the_ready_spaces_are_the_promised_ones():
    promised = {"digits_demo", "cifar10_resnet20", "cifar10_resnet56", "cifar100_vgg19", "imagenet_resnet50"}
    promised |= {"cifar10_resnet20_regularised"}

    assert promised <= set(names())


def test_an_unknown_name_lists_the_ready_spaces_with_the_nearest():
    with pytest.raises(InputError, match=r"'digit_demo' \(did you mean 'digits_demo'\?\).*cifar10_resnet20"):
        load_space("digit_demo")


def test_a_file_is_read_with_its_overrides(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(FILE)
    config = load_space(
        file, overrides=["budget.trials=9", "space.target.flops=0.375", "space.training.lr.float=[1e-3, 1]"]
    )

    assert config.budget == Budget(trials=9)
    assert {recipe.target.flops for recipe in config.space.corners()} == {0.375}
    assert {recipe.training.lr for recipe in config.space.corners()} == {0.001, 1.0}


def test_overrides_reach_sections_that_the_file_leaves_out(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("task: {}\nspace: {method: l1, target: {flops: 0.5}}\n")
    config = load_space(file, overrides=["cascade.keep=0.25", "constraints.params=0.375", "latency.batch=7"])

    assert (config.cascade.keep, config.constraints.params, config.latency.batch) == (0.25, 0.375, 7)


def test_overrides_reach_keys_with_dots(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("task: {}\nspace: {method: l1, allocation: {name: ratios, ratios: {layer1.0.conv1: 0.5}}}\n")
    config = load_space(file, overrides=["space.allocation.ratios.layer1.0.conv1=0.25"])

    assert config.space.corners()[0].allocation.ratios == {"layer1.0.conv1": 0.25}


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("space.targets.flops=0.5", "--set space.targets.flops: there is no 'targets'; allowed: method, target"),
        ("space.target.flops=1.5", "1.5 is out of range; allowed: (0, 1]"),
        ("space.target", "expected key=value"),
        ("budget.trials.x=1", "'trials' is 7 and holds nothing"),
        ("space.target.flops=[", "--set space.target.flops:1: not YAML"),
        ("budget.trials=0", "budget.trials: 0 is out of range"),
        ("budget.hours=1", "budget: unknown key 'hours'"),
        ("cascade.kep=1", "cascade: unknown key 'kep' (did you mean 'keep'?)"),
        ("cascad.keep=1", "--set cascad.keep: there is no 'cascad'; allowed: "),
        ("resources={cpus_per_trial: two}", "resources.cpus_per_trial: expected a whole number"),
        ("objectives=[flops]", "objectives: found ['flops']; allowed: accuracy"),
        ("objectives=[accuracy, speed]", "objectives[1]: unknown value 'speed'"),
        ("sampler={name: tpee}", "sampler.name: unknown value 'tpee' (did you mean 'tpe'?)"),
        ("seed=-1", "seed: -1 is out of range"),
    ],
)
def test_bad_overrides(tmp_path, override, what):
    file = tmp_path / "my.yaml"
    file.write_text(FILE)

    with pytest.raises(InputError) as caught:
        load_space(file, overrides=[override])

    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("task: {}\nspace: [", "my.yaml:2: not YAML"),
        ("task: {}\nspace:\n  method: l1\n  method: l2\n", "my.yaml:4: not YAML: key 'method' appears twice"),
        ("just text", "this is no space file"),
        ("task: {}", "missing key 'space'"),
        ("task: {}\nspaces: {}", "unknown key 'spaces'"),
        ("extends: 3", "expected a name or a path, found 3"),
        ("extends: digits_demos", "unknown search space 'digits_demos' (did you mean 'digits_demo'?)"),
        ("extends: my.yaml", "extends itself"),
        ("extends: gone.yaml", "gone.yaml: cannot read it: No such file"),
    ],
)
def test_bad_files(tmp_path, text, what):
    (tmp_path / "my.yaml").write_text(text)

    with pytest.raises(InputError) as caught:
        load_space(tmp_path / "my.yaml")

    assert what in str(caught.value)


def test_extends_merges_mapping_by_mapping_and_replaces_parameters_whole(tmp_path):
    (tmp_path / "base.yaml").write_text(FILE)
    (tmp_path / "my.yaml").write_text(
        "extends: base.yaml\nspace: {method: {choice: [l2, fpgm]}, training: {lr: {choice: [0.5, 0.25]}}}\n"
    )
    config = load_space(tmp_path / "my.yaml")

    assert config.space.methods() == ("l2", "fpgm")
    assert {recipe.training.lr for recipe in config.space.corners()} == {0.5, 0.25}
    assert {recipe.training.images for recipe in config.space.corners()} == {128, 640}
    assert config.budget == Budget(trials=7)


def test_merge_leaves_its_arguments_alone():
    base, top = {"a": {"b": 1}, "p": {"float": [0, 1], "log": False}}, {"a": {"c": 2}, "p": {"choice": [3]}}

    assert merge(base, top) == {"a": {"b": 1, "c": 2}, "p": {"choice": [3]}}
    assert base == {"a": {"b": 1}, "p": {"float": [0, 1], "log": False}}


@pytest.mark.parametrize("text", ["", "  "])
def test_an_override_without_a_value_is_refused(text):
    allowed = "budget.trials=VALUE, or budget.trials=null for none"

    with pytest.raises(InputError, match=rf"--set budget\.trials: no value; allowed: {allowed}"):
        load_space("digits_demo", overrides=[f"budget.trials={text}"], find_method=methods.find)
    assert load_space("digits_demo", overrides=["budget.trials=null"], find_method=methods.find).budget.trials is None

"""Space files: what they mean, and how they say what is wrong with them."""

import dataclasses
import typing
from dataclasses import dataclass, field

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune import methods
from autoprune.errors import InputError
from autoprune.recipe import Recipe
from autoprune.schema import choices, within
from autoprune.study.config import Budget, StudyConfig
from autoprune.study.constraints import Constraints, Latency
from autoprune.study.parameters import Choice, Float, Int
from autoprune.study.space import Space
from autoprune.study.space_file import load_space, merge, names
from autoprune.study.yaml_text import parse_yaml

GROUPS = [("stem", 0), ("layer1.0.conv1", 0), ("layer2.0.conv1", 1), ("layer3.0.conv1", 2)]
optuna.logging.set_verbosity(optuna.logging.WARNING)
SPACE = """
method:
  choice:
    l1: {}
    bn_scale: {penalty: {float: [1e-5, 1e-3], log: true}, share: 0.25}
target: {flops: {float: [0.1, 0.8]}}
allocation:
  choice:
    uniform: {}
    global: {normalise: {choice: [mean, max]}}
    ratios: {ratios: {each: stage, float: [0.2, 1]}}
training: {images: {int: [128, 640], step: 128}, lr: {float: [0.001, 0.1], log: true}}
"""
FILE = f"task: {{kind: classification}}\nspace:\n{SPACE.replace(chr(10), chr(10) + '  ')}\nbudget: {{trials: 7}}\n"


class Scripted:
    """Suggests what it was told to, else the low end; remembers what it was asked."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, {}

    def _answer(self, name, default, *bounds):
        self.asked[name] = bounds
        return self.answers.get(name.replace(".", "_"), default)

    def suggest_float(self, name, low, high, *, log=False):
        return self._answer(name, low, low, high, log)

    def suggest_int(self, name, low, high, *, step=1, log=False):
        return self._answer(name, low, low, high, step, log)

    def suggest_categorical(self, name, choices):
        return self._answer(name, choices[0], *choices)


def drawn(seed):
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()


def read(text, **options):
    return Space.read(parse_yaml(text, "my.yaml"), "my.yaml: space", **options)


def test_names_are_dotted_paths_and_what_is_outside_a_branch_is_shared():
    space, low, other = read(SPACE).bind(GROUPS), Scripted(), Scripted(method="bn_scale", allocation="ratios")

    assert space.walk(low) == {
        "method": {"name": "l1"},
        "target": {"flops": 0.1},
        "allocation": {"name": "uniform"},
        "training": {"images": 128, "lr": 0.001},
    }
    assert space.walk(other)["method"] == {"name": "bn_scale", "penalty": 1e-5, "share": 0.25}
    assert list(low.asked) == ["method", "target.flops", "allocation", "training.images", "training.lr"]
    assert list(other.asked) == [
        "method",
        "method.bn_scale.penalty",
        "target.flops",
        "allocation",
        *(f"allocation.ratios.ratios.stage{n}" for n in range(3)),
        "training.images",
        "training.lr",
    ]
    assert other.asked["method.bn_scale.penalty"] == (1e-5, 1e-3, True)
    assert other.asked["training.images"] == (128, 640, 128, False)


def test_each_group_gives_one_parameter_per_prunable_group():
    space = read("method: l1\nallocation: {name: ratios, ratios: {each: group, float: [0, 1]}}").bind(GROUPS)

    assert list(space.parameters()) == [f"allocation.ratios.{group}" for group, _ in GROUPS]
    assert Recipe.from_dict(space.walk(Scripted())).allocation.ratios == {group: 0.0 for group, _ in GROUPS}


def test_an_unbound_each_refuses_to_be_walked():
    with pytest.raises(InputError, match="bound to the model's groups"):
        read("method: l1\nallocation: {name: ratios, ratios: {each: group, float: [0, 1]}}").walk(Scripted())


@pytest.mark.parametrize("key", ["layer1.0.conv1", "stage2", "layer*.conv1"])
def test_ratios_by_group_stage_or_pattern_are_accepted(key):
    bound = read(f"method: l1\nallocation: {{name: ratios, ratios: {{'{key}': {{float: [0.1, 1]}}}}}}").bind(GROUPS)

    assert list(bound.parameters()) == [f"allocation.ratios.{key}"]


def test_ratios_of_a_group_that_is_not_there_are_refused():
    space = read("method: l1\nallocation: {name: ratios, ratios: {layer1.0.conv7: 0.5}}")

    with pytest.raises(InputError, match=r"layer1\.0\.conv7.*did you mean 'layer1\.0\.conv1'"):
        space.bind(GROUPS)


def test_methods_and_allocations_may_be_plain_names():
    space = read("method: {choice: [l1, l2]}\nallocation: uniform\ntarget: {flops: 0.5}")

    assert space.methods() == ("l1", "l2")
    assert space.walk(Scripted(method="l2")) == {
        "method": {"name": "l2"},
        "allocation": {"name": "uniform"},
        "target": {"flops": 0.5},
    }


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("target: {flops: 0.5}", "space", "missing key 'method'"),
        ("method: l1\ntarget: {flops: 1.5}", "space.target.flops", "1.5 is out of range; allowed: (0, 1]"),
        ("method: l1\ntarget: {flops: {float: [0.2, 1.5]}}", "space.target.flops", "1.5 is out of range"),
        ("method: l1\ntarget: {flops: {float: [0.5, 0.2]}}", "space.target.flops.float", "low < high"),
        ("method: l1\ntarget: {flops: {float: [0.5]}}", "space.target.flops.float", "expected two numbers"),
        ("method: l1\ntarget: {flops: {float: [a, b]}}", "space.target.flops.float", "expected a number"),
        ("method: l1\ntarget: {flops: {float: [0.1, .inf]}}", "space.target.flops.float", "low < high"),
        ("method: l1\ntraining: {lr: {float: [0, 0.1], log: true}}", "space.training.lr.float", "above 0"),
        ("method: l1\ntraining: {lr: {float: [0.1, 0.2], step: 0.1}}", "space.training.lr", "unknown key 'step'"),
        ("method: l1\ntraining: {lr: {float: [0.1, 1], int: [1, 2]}}", "space.training.lr", "unknown key 'int'"),
        ("method: l1\ntraining: {images: {int: [1, 9], step: 3}}", "space.training.images.step", "a divisor of 9 - 1"),
        ("method: l1\ntraining: {images: {int: [1, 9], step: 2, log: true}}", "space.training.images.step", "log"),
        ("method: l1\ntraining: {images: {int: [1.5, 9]}}", "space.training.images.int", "a whole number"),
        ("method: l1\ntraining: {schedule: {choice: []}}", "space.training.schedule.choice", "nothing to choose"),
        ("method: l1\ntraining: {schedule: {choice: [cosine, cosine]}}", "space.training.schedule.choice", "twice"),
        (
            "method: l1\ntraining: {schedule: {choice: [cosine, [1]]}}",
            "space.training.schedule.choice",
            "expected a num",
        ),
        (
            "method: l1\ntraining: {schedule: {choice: [cosine, sine]}}",
            "space.training.schedule",
            "unknown value 'sine'",
        ),
        ("method: l1\ntraning: {lr: 0.1}", "space", "unknown key 'traning' (did you mean 'training'?)"),
        ("method: l1\ntraining: {lrr: 0.1}", "space.training", "did you mean 'lr'"),
        ("method: {choice: {l1: {name: x}}}", "space.method.choice.l1", "the name of the branch"),
        ("method: {choice: {l1: 3}}", "space.method.choice.l1", "expected a mapping"),
        (
            "method: l1\nallocation: {ratios: {each: layer, float: [0, 1]}}",
            "space.allocation.ratios.each",
            "group, stage",
        ),
        ("method: l1\nallocation: {ratios: {each: group}}", "space.allocation.ratios", "without a parameter"),
        (
            "method: l1\nallocation: {ratios: {each: group, float: [0, 2]}}",
            "space.allocation.ratios",
            "2.0 is out of range",
        ),
        (
            "method: l1\nallocation: {ratios: {each: group, choice: {a: {}}}}",
            "space.allocation.ratios",
            "cannot hold branches",
        ),
    ],
)
def test_errors_name_the_place_and_what_is_allowed(text, where, what):
    with pytest.raises(InputError) as caught:
        read(text)

    assert str(caught.value).startswith(f"my.yaml: {where}")
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{choice: {l1: {}, l3: {}}}", "unknown method 'l3'"),
        ("{choice: {l1: {}, bn_scale: {penality: 1}}}", "unknown hyper-parameter of 'bn_scale' 'penality'"),
        ("{choice: {l1: {}, bn_scale: {penalty: {float: [0.1, 7]}}}}", "7.0 is out of range"),
        ("{name: l1, images: 3}", "unknown hyper-parameter of 'l1' 'images'"),
    ],
)
def test_every_branch_of_the_methods_is_checked(text, what):
    with pytest.raises(InputError) as caught:
        read(f"method: {text}", check_method=methods.build)

    assert str(caught.value).startswith("my.yaml: space.method")
    assert what in str(caught.value)


@dataclass(frozen=True, kw_only=True)
class Declaring:
    """A method with hyper-parameters of every kind."""

    depth: int = field(default=7, metadata=within(3, 11))
    images: int = field(default=13, metadata=within(1, 10**9, log=True, search=(11, 1300)))
    lr: float = field(default=0.1, metadata=within(1e-3, 1, log=True))
    scope: str = field(default="coupled", metadata=choices("coupled", "faithful"))
    above: float = field(default=0.5, metadata=within(0, 1, open_low=True))
    some: float = field(default=0.5, metadata=within(0, 1, open_low=True, search=(0.1, 1)))
    low: float = field(default=0.5, metadata=within(0, 1, log=True))
    endless: float = field(default=1.0, metadata=within(0, float("inf")))
    label: str = "text"


def declaring(name, where):
    return {"mine": Declaring}.get(name) or methods.find(name, where)


DECLARED = {
    "depth": Int(3, 11),
    "images": Int(11, 1300, log=True),
    "lr": Float(1e-3, 1.0, log=True),
    "scope": Choice(("coupled", "faithful")),
    "some": Float(0.1, 1.0),
}


@pytest.mark.parametrize("key", DECLARED)
def test_range_stands_for_what_the_method_declares(key):
    branch = read(f"method: {{choice: {{l1: {{}}, mine: {{{key}: range, label: a}}}}}}", find_method=declaring)
    alone = read(f"method: {{name: mine, {key}: range, label: a}}", find_method=declaring)

    assert branch.parameters()[f"method.mine.{key}"] == DECLARED[key]
    assert alone.parameters() == {f"method.{key}": DECLARED[key]}
    assert alone.walk(Scripted())["method"]["label"] == "a"


def test_ranges_stands_for_all_hyper_parameters_that_declare_one():
    parameters = read("method: {choice: {l1: {}, mine: ranges}}", find_method=declaring).parameters()

    assert list(parameters) == ["method", *(f"method.mine.{key}" for key in DECLARED)]
    assert [parameters[f"method.mine.{key}"] for key in DECLARED] == list(DECLARED.values())


@pytest.mark.parametrize("name", [name for name, kind in methods.METHODS.items() if dataclasses.fields(kind)])
def test_every_method_declares_a_valid_range_for_every_hyper_parameter(name):
    options = {"check_method": methods.build, "find_method": methods.find}
    space = read(f"method: {{choice: {{{name}: ranges}}}}", **options)  # builds the method at both ends
    kinds = typing.get_type_hints(methods.METHODS[name])
    fields = {f.name: f for f in dataclasses.fields(methods.METHODS[name]) if kinds[f.name] in (int, float, str)}

    assert {key.removeprefix(f"method.{name}.") for key in space.parameters()} == {"method", *fields}
    for key, item in fields.items():
        found = space.parameters()[f"method.{name}.{key}"]
        if isinstance(found, Choice):
            assert item.default in found.options
            assert not {"range", "ranges"} & set(found.options)  # else the words would have two meanings
        else:
            assert found.low <= item.default <= found.high
            assert found.log == item.metadata["log"]


def test_what_is_written_down_needs_no_method_to_be_read_again(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(FILE)
    words = ["space.method.choice.greg1=ranges", "space.method.choice.bn_scale.penalty=range"]
    config = load_space(file, overrides=words, check_method=methods.build, find_method=methods.find)

    assert "range" not in config.to_yaml()
    assert StudyConfig.from_yaml(config.to_yaml()) == config
    assert config.space.parameters()["method.greg1.shrink"].log


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("{choice: {mine: {dept: range}}}", "choice.mine", "unknown hyper-parameter of 'mine' 'dept' (did you"),
        ("{name: mine, dept: range}", "", "unknown hyper-parameter of 'mine' 'dept' (did you mean 'depth'?)"),
        ("{choice: {mines: ranges}}", "choice.mines", "unknown method 'mines'"),
        ("{choice: {l1: ranges}}", "choice.l1", "method 'l1' declares no ranges; allowed: {}"),
        ("{choice: {l1: {p: range}}}", "choice.l1.p", "method 'l1' has no hyper-parameters; allowed: {}"),
        ("{choice: {mine: {label: range}}}", "choice.mine.label", "'label' declares no range; allowed: depth, images,"),
        ("{choice: {mine: {above: range}}}", "choice.mine.above", "'above' declares no range"),
        ("{choice: {mine: {low: range}}}", "choice.mine.low", "'low' declares no range"),
        ("{choice: {mine: {endless: range}}}", "choice.mine.endless", "'endless' declares no range"),
        ("{choice: {mine: range}}", "choice.mine", "found 'range'; allowed: `ranges`, or a mapping"),
        ("{name: {choice: [l1, l2]}, p: range}", "", "the method's name is not a plain name"),
    ],
)
def test_ranges_that_cannot_be_looked_up(text, where, what):
    with pytest.raises(InputError) as caught:
        read(f"method: {text}", find_method=declaring)

    assert str(caught.value).startswith(f"my.yaml: space.method{'.' if where else ''}{where}: ")
    assert what in str(caught.value)


def test_ranges_need_to_know_the_methods():
    with pytest.raises(InputError, match="no methods are known here"):
        read("method: {choice: {greg1: ranges}}")


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_random_walks_are_recipes_and_survive_the_way_through_plain_data(seed):
    space = read(SPACE).bind(GROUPS)
    plain = space.walk(drawn(seed))
    recipe = Recipe.from_dict(plain)

    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert space.walk(drawn(seed)) == plain
    assert Space.read(space.to_plain()).walk(drawn(seed)) == plain


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


def test_exponents_without_a_point_are_numbers():
    assert parse_yaml("{a: 1e-4, b: 2E3, c: 1.5e+2, d: e5}", "x") == {"a": 1e-4, "b": 2000.0, "c": 150.0, "d": "e5"}


TIMED = """
task: {}
space: {method: l1, target: {flops: {float: [0.2, 0.8]}}}
objectives: [accuracy, latency, params]
constraints: {latency_ms: 5, activations: 0.75}
latency: {batch: 7}
"""


def test_objectives_and_constraints_round_trip():
    config = StudyConfig.from_yaml(TIMED)

    assert config.objectives == ("accuracy", "latency", "params")
    assert config.constraints == Constraints(latency_ms=5.0, activations=0.75)
    assert config.timed == Latency(batch=7)
    assert StudyConfig.from_yaml(config.to_yaml()) == config


@pytest.mark.parametrize(
    ("objectives", "limits", "timed"),
    [
        (("accuracy", "flops"), {}, False),
        (("accuracy", "flops"), {"params": 0.5}, False),
        (("accuracy", "flops"), {"latency": 0.5}, True),
        (("accuracy", "flops"), {"latency_ms": 5.0}, True),
        (("accuracy", "latency"), {}, True),
    ],
)
def test_models_are_timed_only_where_somebody_wants_to_know(objectives, limits, timed):
    config = dataclasses.replace(StudyConfig.from_yaml(TIMED), objectives=objectives, constraints=Constraints(**limits))

    assert (config.timed is not None) == timed


def test_how_far_costs_exceed_constraints():
    limits = Constraints(latency_ms=4.0, params=0.5, flops=0.8)
    costs = {"latency_ms": 5.0, "params": 0.25, "flops": None, "activations": 0.9}

    assert limits.excess(costs) == {"params": -0.5, "latency_ms": 0.25}
    assert limits.broken(costs) == "latency_ms 5 > 4"
    assert limits.broken({**costs, "params": 0.75}) == "params 0.75 > 0.5"
    assert limits.broken({**costs, "latency_ms": 4.0}) == ""

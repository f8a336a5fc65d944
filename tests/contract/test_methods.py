"""What every pruning method promises. A new method joins `CASES` and earns these tests."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from nets import Depthwise, Residual, image, randomised
from regularisers import cross_entropy, predict
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune import methods
from autoprune.engine.allocation.allocate import TOLERANCE
from autoprune.engine.allocation.features import as_ratios
from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.masking import mask
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.errors import InputError
from autoprune.methods import Context, Method, Stage
from autoprune.recipe import Allocation, MethodChoice, Target, Training

CASES = {
    "dense": {},
    "random": {},
    "l1": {},
    "l2": {},
    "fpgm": {},
    "bn_scale": {"penalty": 1e-2, "share": 0.5},
    "taylor": {"images": 6},
    "epruner": {},
    "fuzzy": {},
    "blend": {"l1": 0.7, "fpgm": 0.3, "group_fisher": 0.5, "taylor": 0.0},
    "group_fisher": {"images": 6},
    "greg1": {},
    "greg2": {},
    "l0_hqs": {},
    "orthoreg": {"images": 128},
    "increg": {},
    "sfp": {},
    "asfp": {},
    "srfp": {},
    "asrfp": {},
    "svd": {"channels": "prune"},
    "hinge": {},
    "ldrf": {"images": 6, "steps": 3},
    "channel_pruning": {"images": 6},
}


def data(images: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    for start in range(0, images, 2):
        count = min(2, images - start)
        yield torch.randn(count, 3, 9, 9, generator=generator), torch.randint(5, (count,), generator=generator)


def context(net: nn.Module, seed: int = 0) -> Context:
    return Context(net, trace(net, image()), data, cross_entropy, predict, seed)


def stage(method: Method, **changes: object) -> Stage:
    fields = {"target": Target(flops=0.5), "allocation": Allocation(), "steps": 40, **changes}
    return Stage(training=method.stage_training(Training(lr=0.05)), **fields)  # type: ignore[arg-type]


def shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def test_every_method_is_in_the_contract() -> None:
    assert set(CASES) == set(methods.names())


@pytest.mark.parametrize("name", CASES)
class TestMethod:
    def test_it_is_a_value(self, name: str) -> None:
        one, two = (methods.build(MethodChoice(name=name, params=CASES[name])) for _ in range(2))

        assert one == two
        assert hash(one) == hash(two)
        with pytest.raises(dataclasses.FrozenInstanceError):
            one.name = "other"

    def test_it_says_where_it_comes_from(self, name: str) -> None:
        method = methods.METHODS[name]

        assert method.name == name
        assert method.source
        assert method.summary
        assert method.__doc__

    def test_it_says_how_many_steps_it_needs(self, name: str) -> None:
        assert isinstance(methods.METHODS[name].least_steps, int)
        assert 1 <= methods.METHODS[name].least_steps <= 10_000

    def test_every_hyper_parameter_has_a_range_and_is_checked(self, name: str) -> None:
        for field in dataclasses.fields(methods.METHODS[name]):
            assert field.metadata, f"{name}.{field.name} has no range"
            with pytest.raises(InputError, match=f"method.{field.name}"):
                methods.build(MethodChoice(name=name, params={field.name: "nonsense"}))

    def test_unknown_hyper_parameters_are_refused_with_the_list(self, name: str) -> None:
        with pytest.raises(InputError, match=f"unknown hyper-parameter of '{name}'"):
            methods.build(MethodChoice(name=name, params={"penalti": 1}))

    def test_scores_are_finite_one_per_unit_and_only_for_prunable_groups(self, name: str) -> None:
        case = context(randomised(Depthwise()))
        scores = methods.build(MethodChoice(name=name, params=CASES[name])).score(case)

        assert set(scores) <= set(case.graph.by_id)
        for group, values in scores.items():
            assert values.shape == (case.graph.by_id[group].size,)
            assert np.isfinite(values).all()

    def test_it_says_beforehand_which_groups_it_scores(self, name: str) -> None:
        for net in (Depthwise, Residual):
            method = methods.build(MethodChoice(name=name, params=CASES[name]))
            case = context(method.prepare(randomised(net())))

            assert sorted(method.groups(case)) == sorted(method.score(case))

    def test_scores_are_a_function_of_the_context(self, name: str) -> None:
        method = methods.build(MethodChoice(name=name, params=CASES[name]))
        one, two = (method.score(context(randomised(Residual()))) for _ in range(2))

        assert one.keys() == two.keys()
        assert all(np.allclose(one[group], two[group], rtol=1e-5) for group in one)

    def test_scoring_and_rebuilding_leave_the_model_as_it_was(self, name: str) -> None:
        case = context(randomised(Residual()))
        before = copy.deepcopy(case.model.state_dict())
        method = methods.build(MethodChoice(name=name, params=CASES[name]))

        keep = method.select(case, method.score(case), Target(flops=0.5), Allocation()).keep
        method.rebuild(case, keep)

        assert not case.model.training
        assert all(torch.equal(before[key], value) for key, value in case.model.state_dict().items())
        assert all(p.grad is None for p in case.model.parameters())

    def test_the_target_is_met_and_masked_equals_cut(self, name: str) -> None:
        case = context(randomised(Residual(stream=23, inner=31)))
        method = methods.build(MethodChoice(name=name, params=CASES[name]))
        keep = method.select(case, method.score(case), Target(flops=0.5), Allocation()).keep
        ratio = cost(case.graph, keep).ratios(cost(case.graph, Keep.all()))["flops"]
        masked = mask(case.model, case.graph, keep)

        assert ratio == pytest.approx(1.0 if name == "dense" else 0.5, abs=TOLERANCE)
        with torch.no_grad():
            cut = method.rebuild(dataclasses.replace(case, model=masked), keep)
        if method.reconstructs:
            assert shapes(cut) == shapes(prune(case.model, case.graph, keep, fold=False))
        else:
            assert torch.allclose(masked(image()), cut(image()), atol=1e-5)

    def test_an_allocation_by_features_is_the_one_by_the_ratios_they_stand_for(self, name: str) -> None:
        case = context(randomised(Residual(stream=23, inner=31)))
        method = methods.build(MethodChoice(name=name, params=CASES[name]))
        scores, by_features = method.score(case), Allocation(name="features", depth=1.5, stream=-1.5)
        one, two = (
            method.select(case, scores, Target(flops=0.5), allocation)
            for allocation in (by_features, as_ratios(case.graph, by_features, {}))
        )

        assert one == two
        assert name == "dense" or one.keep != Keep.all()

    def test_regulariser_state_survives_json_like_round_trip(self, name: str) -> None:
        case = context(randomised(Residual()))
        method = methods.build(MethodChoice(name=name, params=CASES[name]))
        regulariser = method.sparsify(case, stage(method))

        assert (regulariser is not None) == (method.stage_shares[0] > 0)  # later stages may be plain training
        if regulariser is not None:
            regulariser.load_state_dict(json.loads(json.dumps(regulariser.state_dict())))


def one_layer(weight: list[list[float]]) -> nn.Module:
    """A 1x1 convolution (filters, 2) with these weights, and a reader of its outputs."""
    width = len(weight)
    net = nn.Sequential(nn.Conv2d(2, width, 1, bias=False), nn.BatchNorm2d(width), nn.Conv2d(width, 5, 1))
    net[0].weight.data.copy_(torch.tensor(weight)[:, :, None, None])
    return net.eval()


def scores_of(name: str, net: nn.Module, seed: int = 0) -> list[float]:
    graph = trace(net, torch.zeros(1, 2, 3, 3))
    case = Context(net, graph, data, cross_entropy, predict, seed)
    return methods.build(MethodChoice(name=name)).score(case)["0"].tolist()


def test_l1_by_hand() -> None:
    assert scores_of("l1", one_layer([[1, -2], [0, 0.5], [-3, -4]])) == [3, 0.5, 7]


def test_l2_by_hand() -> None:
    assert scores_of("l2", one_layer([[0, -2], [0, 0.5], [-3, -4]])) == [2, 0.5, 5]


def test_fpgm_by_hand() -> None:
    # distances between (0, 0), (3, 4) and (6, 8): 5, 10 and 5; the filter in the middle is the replaceable one
    assert scores_of("fpgm", one_layer([[0, 0], [3, 4], [6, 8]])) == pytest.approx([15, 10, 15])


def test_bn_scale_by_hand() -> None:
    net = one_layer([[1, 1], [1, 1], [1, 1]])
    net[1].weight.data.copy_(torch.tensor([0.5, -2.0, 0.0]))

    assert scores_of("bn_scale", net) == [0.5, 2.0, 0.0]


def test_coupled_filters_add_up() -> None:
    net = randomised(Residual())
    case = context(net)
    expected = sum(layer.weight.detach().abs().sum((1, 2, 3)) for layer in (net.stem[0], net.a2, net.b2))

    assert methods.build(MethodChoice(name="l1")).score(case)["stem.0"] == pytest.approx(expected.numpy(), rel=1e-6)


def test_random_scores_follow_the_seed_alone() -> None:
    net = one_layer([[1, 1], [2, 2], [3, 3]])

    assert scores_of("random", net, seed=1) == scores_of("random", net, seed=1)
    assert scores_of("random", net, seed=1) != scores_of("random", net, seed=2)


def test_bn_scale_regulariser_adds_the_subgradient_to_prunable_scales_only() -> None:
    net = nn.Sequential(nn.Conv2d(3, 7, 1), nn.BatchNorm2d(7), nn.Conv2d(7, 5, 1), nn.BatchNorm2d(5))
    net[1].weight.data.copy_(torch.tensor([1.0, -1, 2, -2, 0, 3, -3]))
    method = methods.build(MethodChoice(name="bn_scale", params={"penalty": 0.1}))
    regulariser = method.sparsify(context(net), stage(method))
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)

    assert regulariser is not None
    regulariser.before_step(net, 0, 1)

    assert net[1].weight.grad.tolist() == pytest.approx([0.1, -0.1, 0.1, -0.1, 0, 0.1, -0.1])
    assert all(not p.grad.any() for name, p in net.named_parameters() if name != "1.weight")  # 3.* makes the output


def test_bn_scale_without_batch_norm_says_what_it_needs() -> None:
    net = nn.Sequential(nn.Conv2d(3, 7, 1), nn.Conv2d(7, 5, 1))

    with pytest.raises(InputError, match="needs batch norms"):
        methods.build(MethodChoice(name="bn_scale")).score(context(net))


def test_taylor_is_the_squared_change_of_the_loss_when_a_channel_is_scaled() -> None:
    layers = [nn.Conv2d(3, 7, 1), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 5, 9), nn.Flatten()]
    net = randomised(nn.Sequential(*layers)).double()
    batches = [(x.double(), y) for x, y in data(6)]
    case = Context(net, trace(net, image().double()), lambda images: iter(batches), cross_entropy, predict, 0)
    scores = methods.build(MethodChoice(name="taylor", params={"images": 6})).score(case)["0"]

    def loss(channel: int, gate: float, x: Tensor, y: Tensor) -> float:
        hidden = net[1](net[0](x))
        gates = torch.ones(7, dtype=torch.float64).index_fill(0, torch.tensor(channel), gate)
        return F.cross_entropy(net[4](net[3](net[2](hidden * gates[:, None, None]))), y).item()

    step = 1e-6
    with torch.no_grad():
        for channel in range(7):
            slopes = [(loss(channel, 1 + step, x, y) - loss(channel, 1 - step, x, y)) / (2 * step) for x, y in batches]
            assert scores[channel] == pytest.approx(np.mean(np.square(slopes)), rel=1e-4)


def test_unknown_methods_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"unknown method 'tailor' \(did you mean 'taylor'\?\); allowed: asfp, asrfp"):
        methods.build(MethodChoice(name="tailor"))

"""Layers as two of lower rank: the same function, ranks that prune like channels, and one layer again."""

from __future__ import annotations

import pytest
import torch
from nets import Chain, Residual, block, image, randomised
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoprune.engine.cost import cost
from autoprune.engine.keep import Keep
from autoprune.engine.surgery import artifact
from autoprune.engine.surgery.low_rank import Decomposed, decomposable, decompose, decomposed, recompose, unprofitable
from autoprune.engine.surgery.masking import mask
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.errors import InputError


def answers(net: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return net(image())


@pytest.mark.parametrize("init", ["svd", "identity"])
@pytest.mark.parametrize("net", [Chain, Residual])
def test_a_decomposed_model_computes_the_same_and_its_layers_are_there(net: type[nn.Module], init: str) -> None:
    dense = randomised(net())
    names = decomposable(dense)
    pair = decompose(dense, names, init)

    assert "head" in names
    assert decomposed(pair) == names
    assert decomposed(dense) == ()
    assert torch.allclose(answers(dense), answers(pair), atol=1e-4)
    assert torch.allclose(answers(dense), answers(recompose(pair, names)), atol=1e-4)
    assert str(recompose(pair, names)) == str(dense)


def test_strides_paddings_dilations_and_biases_stay() -> None:
    layer = nn.Conv2d(3, 7, 3, stride=2, padding=(1, 2), dilation=(1, 2), padding_mode="reflect")
    net = randomised(nn.Sequential(layer, nn.Flatten(), nn.Linear(7 * 25, 5)))
    pair = decompose(net, ["0"])

    assert isinstance(pair[0], Decomposed)
    assert pair[0].basis.bias is None
    assert torch.equal(pair[0].mix.bias, net[0].bias)
    assert torch.allclose(answers(net), answers(pair), atol=1e-4)


def test_the_rank_is_the_smaller_side_and_inner_channels_weigh_as_much_as_singular_values() -> None:
    net = randomised(nn.Sequential(nn.Conv2d(3, 31, 3), nn.Flatten(), nn.Linear(31 * 49, 5)))
    pair = decompose(net, ["0"])[0]
    values = torch.linalg.svdvals(net[0].weight.detach().flatten(1))

    assert pair.basis.weight.shape == (27, 3, 3, 3)
    assert torch.allclose(pair.mix.weight.flatten(1).norm(dim=0), values, rtol=1e-4)
    assert torch.allclose(pair.basis.weight.flatten(1) @ pair.basis.weight.flatten(1).T, torch.eye(27), atol=1e-5)


def test_ranks_are_groups_of_the_graph_that_cost_mask_and_cut_as_others_do() -> None:
    net = decompose(randomised(Residual(stream=23, inner=31)), ["a1.0", "a2", "stem.0"])
    graph = trace(net, image())
    keep = Keep.of({"a1.0.basis": range(5), "a2.basis": range(3, 14), "a1.0.mix": range(0, 31, 2)})
    small = prune(net, graph, keep)

    assert graph.by_id["a1.0.basis"].size == 23
    assert small.a1[0].basis.weight.shape == (5, 23, 1, 1)
    assert small.a1[0].mix.weight.shape == (16, 5, 1, 1)
    assert small.a2.mix.weight.shape == (23, 11, 1, 1)
    assert torch.allclose(answers(mask(net, graph, keep)), answers(prune(net, graph, keep, fold=False)), atol=1e-5)
    with FlopCounterMode(display=False) as counter:
        answers(small)
    assert cost(graph, keep).flops == counter.get_total_flops()


def test_a_rank_pays_only_below_k_n_over_k_plus_n() -> None:
    net = decompose(randomised(nn.Sequential(block(3, 7), block(7, 11), nn.Flatten(), nn.Linear(11 * 25, 5))), ["1.0"])
    graph = trace(net, image())  # K = 7 * 9 = 63, n = 11: below 9.36

    def at(rank: int, outputs: int = 11) -> tuple[str, ...]:
        return unprofitable(net, graph, Keep.of({"1.0.basis": range(rank), "1.0.mix": range(outputs)}))

    assert at(9) == ()
    assert at(10) == ("1.0",)
    assert at(6, outputs=7) == ()  # 63 * 7 / 70 = 6.3
    assert at(7, outputs=7) == ("1.0",)


def test_a_decomposed_model_survives_the_disk(tmp_path) -> None:
    dense = randomised(Residual(stream=23, inner=31))
    net = decompose(dense, ["a1.0", "b2"])
    graph = trace(net, image())
    keep = Keep.of({"a1.0.basis": range(5), "b2.basis": range(3, 14), "b1.0": range(7, 30), "stem.0": range(2, 19)})
    small = prune(net, graph, keep)
    artifact.save(tmp_path / "small", small, graph, keep)
    again = artifact.load(tmp_path / "small", lambda: randomised(Residual(stream=23, inner=31)))

    assert str(again) == str(small)
    assert torch.equal(answers(again), answers(small))
    assert decomposed(again) == ("a1.0", "b2")


def test_what_cannot_be_decomposed_is_refused_with_the_names_that_can() -> None:
    with pytest.raises(InputError, match=r"layer 'stem.1' cannot be decomposed; allowed: stem.0, a1.0"):
        decompose(randomised(Residual()), ["stem.1"])
    with pytest.raises(InputError, match="is not decomposed"):
        recompose(randomised(Residual()), ["stem.0"])
    with pytest.raises(InputError, match="unknown start 'svd2'; allowed: svd, identity"):
        decompose(randomised(Residual()), ["stem.0"], "svd2")
    assert "1" not in decomposable(
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.ConvTranspose2d(4, 4, 1))
    )


def test_constants_that_were_folded_into_a_basis_stay_when_the_layer_is_single_again() -> None:
    net = decompose(randomised(Residual(stream=23, inner=31)), ["a2"])
    small = prune(net, trace(net, image()), Keep.of({"a1.0": range(5, 31)}))
    assert small.a2.basis.bias is not None

    assert torch.allclose(answers(small), answers(recompose(small, ["a2"])), atol=1e-5)

"""Squared sums of per-sample mask gradients, and which units can be masked where they are read."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from masks import Tokens, count_hooks, multiplied, traced_as
from nets import Chain, Depthwise, Grouped, Residual, Shared, image, randomised
from regularisers import build, context, images
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.engine.keep import Keep
from autoprune.engine.surgery.prune import prune
from autoprune.errors import InputError
from autoprune.methods import Context
from autoprune.methods.base.mask_gradients import MaskGradients, maskable_groups

#: Per network and group, the inputs at which a unit is masked: layer -> the place of its mask on every input channel.
MASKED = {
    "Residual stream": (Residual, "offsets", "stem.0", {name: range(7) for name in ("a1.0", "b1.0", "head")}),
    "depthwise": (
        Depthwise,
        "offsets",
        "expand.0",
        {name: range(13) for name in ("depthwise.0", "reduce", "project.0")},
    ),
    "grouped, offsets": (Grouped, "offsets", "before.0", {"grouped.0": [*range(5)] * 3}),
    "grouped, groups": (
        Grouped,
        "groups",
        "before.0",
        {"grouped.0": np.repeat(range(3), 5), "after.0": np.repeat(range(3), 7)},
    ),
    "flatten": (Chain, "offsets", "second.0", {"head": np.repeat(range(11), 4)}),
    "called twice": (Shared, "offsets", "stem.0", {"shared": range(11), "up": range(11)}),
}


def by_autograd(net: nn.Module, masked: dict[str, list[int]], size: int, inputs: Tensor, labels: Tensor) -> Tensor:
    """dL_n/dm of shape (images, units), one image at a time through masks that are multiplied in."""
    rows = []
    for one, label in zip(inputs, labels, strict=True):
        mask = torch.ones(1, size, requires_grad=True)
        with multiplied(net, {name: mask[:, list(places)] for name, places in masked.items()}):
            loss = F.cross_entropy(net(one[None]), label[None])
        rows.append(torch.autograd.grad(loss, mask)[0][0])
    return torch.stack(rows)


def squared_gradients(case: Context, inputs: Tensor, labels: Tensor) -> Tensor:
    """What one pass gives, times the square of its images, a vector over units."""
    _, readers = maskable_groups(case, "coupled")
    gradients = MaskGradients(readers, case.graph.unit_count)
    with gradients.listening(case.model):
        case.loss(case.model, (inputs, labels)).backward()
        return gradients.take()[:-1] * len(inputs) ** 2


@pytest.mark.parametrize("name", MASKED)
def test_the_score_is_the_sum_of_squared_per_sample_gradients_of_one_mask_for_all_readers(name: str) -> None:
    make, grouped, group, masked = MASKED[name]
    net = randomised(make())
    case = traced_as(net, grouped)
    units = case.graph.by_id[group].units
    inputs, labels = image(batch=5), torch.tensor([0, 1, 2, 3, 4])
    gradients = by_autograd(net, masked, len(units), inputs, labels)
    found = squared_gradients(case, inputs, labels)[torch.tensor(units)]

    assert found.tolist() == pytest.approx(gradients.square().sum(0).tolist(), rel=1e-3)
    assert found.tolist() != pytest.approx(gradients.sum(0).square().tolist(), rel=0.1)  # images apart
    if len(masked) > 1:
        parts = [by_autograd(net, {one: masked[one]}, len(units), inputs, labels) for one in masked]
        apart = sum(part.square().sum(0) for part in parts)
        assert found.tolist() != pytest.approx(apart.tolist(), rel=0.1)  # readers together


def test_layers_that_see_an_image_as_several_rows_or_positions_add_them_up() -> None:
    gradients = MaskGradients({}, 3)
    gradients.images = 2
    units = torch.tensor([0, 2, 3])  # of three units; the last channel belongs to none
    gradients.observed = [(units, torch.tensor([[1.0, 2, 9], [3, 4, 9], [5, 6, 9], [7, 8, 9]]))]

    assert gradients.take().tolist() == [4**2 + 12**2, 0, 6**2 + 14**2, 0]


class Unheard(Tokens):
    """The same; the narrowing layer's weights are used without calling it."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.head((x + F.linear(F.gelu(self.up(x)), self.down.weight, self.down.bias)).mean(1))


def test_tokens_of_an_image_belong_together() -> None:
    net = randomised(Tokens())
    case = context(net)
    inputs, labels = image(batch=3), torch.tensor([0, 1, 2])
    found = squared_gradients(case, inputs, labels)[torch.tensor(case.graph.by_id["up"].units)]
    hidden: list[Tensor] = []
    handle = net.down.register_forward_pre_hook(lambda _, args: hidden.append(args[0]))
    loss = F.cross_entropy(net(inputs), labels, reduction="sum")
    handle.remove()
    (gradient,) = torch.autograd.grad(loss, hidden[0])

    assert found.tolist() == pytest.approx((gradient * hidden[0]).sum(1).square().sum(0).tolist(), rel=1e-3)


def test_what_is_read_by_a_layer_that_is_not_called_is_left_whole() -> None:
    scores = build("group_fisher", images=4).score(context(randomised(Unheard())))

    assert set(scores) == {"embed"}
    assert set(build("group_fisher", images=4).score(context(randomised(Tokens())))) == {"embed", "up"}


class Unread(nn.Module):
    """Queries and keys, which only meet each other."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.head = nn.Linear(9, 7), nn.Linear(9, 7), nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean(1)
        return self.head((self.q(x) @ self.k(x).transpose(1, 2)).mean(1))


def test_a_model_without_anything_to_mask_is_refused() -> None:
    with pytest.raises(InputError, match="masked where they are read"):
        build("group_fisher", images=4).score(context(randomised(Unread())))


def test_scores_rank_units_as_the_loss_changes_without_them() -> None:
    """Near a minimum first-order changes cancel out over the images, and the loss changes by the curvature."""
    torch.manual_seed(0)
    net = randomised(Residual())
    case = context(net)
    batch, targets = next(images(2))[0].repeat(50, 1, 1, 1), torch.randint(5, (100,))
    batch += torch.randn(batch.shape)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(net(batch), targets).backward()
        optimizer.step()
    found = squared_gradients(case, batch, targets)
    changes = {}
    with torch.no_grad():
        whole = F.cross_entropy(net(batch), targets).item()
        for group in case.graph.prunable:
            for position, unit in enumerate(group.units.tolist()):
                rest = [p for p in range(group.size) if p != position]
                cut = prune(net, case.graph, Keep.of({group.id: rest}))
                changes[unit] = F.cross_entropy(cut(batch), targets).item() - whole

    assert spearmanr([found[unit].item() for unit in changes], list(changes.values())).statistic > 0.7


def test_a_model_comes_out_of_listening_and_scoring_as_it_went_in() -> None:
    net = randomised(Residual()).train()
    case = context(net)
    before, outputs = copy.deepcopy(net.state_dict()), net(image())
    net.load_state_dict(before)
    maskable_groups(case, "coupled")

    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    _, readers = maskable_groups(case, "coupled")
    with MaskGradients(readers, case.graph.unit_count).listening(net):
        assert torch.equal(net(image()), outputs)
    assert count_hooks(net) == 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bfloat16_and_channels_last_give_nearly_the_same_scores(layout: torch.memory_format) -> None:
    net = randomised(Depthwise())
    case = context(net)
    inputs, labels = image(size=17, batch=7), torch.arange(7) % 5
    exact = squared_gradients(case, inputs, labels)
    _, readers = maskable_groups(case, "coupled")
    gradients = MaskGradients(readers, case.graph.unit_count)
    net.to(memory_format=layout)
    with gradients.listening(net):
        with torch.autocast("cpu", torch.bfloat16):
            outputs = net(inputs.contiguous(memory_format=layout))
        F.cross_entropy(outputs.float(), labels).backward()
        found = gradients.take()[:-1] * 7**2

    assert found.dtype == torch.float32
    units = torch.cat([torch.tensor(group.units) for group in case.graph.prunable])
    assert (found[units] - exact[units]).abs().sum() < 0.1 * exact[units].sum()


def test_frozen_layers_in_front_do_not_silence_a_reader() -> None:
    net = randomised(Residual())
    case = context(net)
    inputs, labels = image(batch=3), torch.tensor([0, 1, 2])
    exact = squared_gradients(case, inputs, labels)
    net.stem.requires_grad_(False)

    assert squared_gradients(case, inputs, labels).tolist() == pytest.approx(exact.tolist(), rel=1e-4)

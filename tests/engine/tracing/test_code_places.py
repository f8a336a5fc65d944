"""Reasons name the line of the model's own code."""

import torch
from torch import nn

from autoprune.engine.tracing.code_places import place_in_code
from autoprune.engine.tracing.trace import trace


class AsWideAsItWas(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 7, 3), nn.Conv2d(7, 5, 3)

    def forward(self, x):
        y = self.a(x)
        if y.shape[1] != 7:
            raise ValueError("seven")
        return self.b(y)


def raised_by(function):
    try:
        function()
    except RuntimeError as error:
        return error


def test_a_reason_names_the_line_that_fixes_a_size():
    reasons = {group.id: group.frozen for group in trace(AsWideAsItWas(), torch.rand(1, 3, 9, 9)).groups}
    assert reasons["a"].startswith("the model's code fixes its size: seven (test_code_places.py:")
    assert reasons["a"].endswith(': raise ValueError("seven"))')


def test_lines_of_torch_are_passed_over():
    place = place_in_code(raised_by(lambda: nn.Linear(3, 5)(torch.rand(2, 7))))
    assert place.startswith("test_code_places.py:")


def test_an_error_that_only_torch_had_a_hand_in_has_no_place():
    error = raised_by(lambda: nn.Linear(3, 5)(torch.rand(2, 7)))
    error.__traceback__ = error.__traceback__.tb_next.tb_next
    assert place_in_code(error) is None

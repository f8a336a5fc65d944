"""What is wrong in a space is said with its place and with what is allowed."""

import pytest
from spaces import read_space

from autoprune.errors import InputError


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
        read_space(text)

    assert str(caught.value).startswith(f"my.yaml: {where}")
    assert what in str(caught.value)

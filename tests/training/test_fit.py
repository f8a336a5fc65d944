"""The training loop: arithmetic by hand, determinism, resuming to the bit, divergence, evaluation and recalibration."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoprune.errors import InputError
from autoprune.recipe import Training
from autoprune.tasks import load_task
from autoprune.training import distillation, seeds
from autoprune.training import fit as fit_module
from autoprune.training import runtime as runtime_module
from autoprune.training.averaging import MovingAverage
from autoprune.training.evaluate import evaluate, recalibrate
from autoprune.training.fit import DivergedError, fit, learning_rate
from autoprune.training.runtime import Runtime

CPU = Runtime(channels_last=True)


@pytest.fixture(scope="module")
def digits():
    return load_task({"data": {"name": "digits", "augment": ["crop"]}, "model": {"name": "digits_net"}})


class Small(nn.Module):
    """Few odd channels, and dropout, so that the random state matters."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 7, 3, padding=1, bias=False), nn.BatchNorm2d(7)
        self.drop, self.linear = nn.Dropout(0.2), nn.Linear(7 * 64, 10)

    def forward(self, x):
        return self.linear(self.drop(F.relu(self.norm(self.conv(x))).flatten(1)))


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Small().eval()


class Recorder:
    """A regulariser that writes down what it is told, and pushes the scales down."""

    def __init__(self):
        self.calls = []

    def before_step(self, model, step, steps):
        assert model.norm.weight.grad is not None
        self.calls.append(["before", step, steps])

    def after_step(self, model, step, steps):
        model.norm.weight.data.mul_(0.99)
        self.calls.append(["after", step, steps])

    def state_dict(self):
        return {"calls": [list(call) for call in self.calls]}

    def load_state_dict(self, state):
        self.calls = state["calls"]


# --- arithmetic -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0.0, [0.8, 0.8, 0.8, 0.8]),
        ("linear", 0.0, [0.8, 0.6, 0.4, 0.2]),
        ("cosine", 0.0, [0.8, 0.4 * (1 + math.sqrt(0.5)), 0.4, 0.4 * (1 - math.sqrt(0.5))]),
        ("linear", 0.5, [0.4, 0.8, 0.8, 0.4]),
        ("cosine", 0.25, [0.8, 0.8, 0.6, 0.2]),
    ],
)
def test_learning_rate_by_hand(schedule, warmup, expected):
    training = Training(lr=0.8, schedule=schedule, warmup=warmup)

    assert pytest.approx(expected) == [learning_rate(training, step, 4) for step in range(4)]


def test_distillation_by_hand():
    outputs, taught = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * math.log(3), 0.0]])

    # at T = 2 the teacher says (3/4, 1/4) and the student (1/2, 1/2)
    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert pytest.approx(expected, abs=1e-6) == distillation.distillation(outputs, taught, 2.0).item()


def test_distillation_of_an_agreeing_teacher_is_nothing():
    outputs = torch.randn(5, 7)

    assert pytest.approx(0, abs=1e-6) == distillation.distillation(outputs, outputs + 3, 4.0).item()


def test_moving_average_by_hand():
    model = nn.Sequential(nn.BatchNorm2d(1))
    model[0].weight.data.fill_(8.0)
    average = MovingAverage(model, 0.75)
    for weight, mean in [(4.0, 1.0), (0.0, 2.0)]:
        model[0].weight.data.fill_(weight)
        model[0].running_mean.fill_(mean)
        average.update(model)

    # 8 -> 0.75 * 8 + 0.25 * 4 = 7 -> 0.75 * 7 = 5.25; 0 -> 0.25 -> 0.75 * 0.25 + 0.5 = 0.6875
    with average.shown(model):
        assert 5.25 == model[0].weight.item()
        assert 0.6875 == model[0].running_mean.item()
    assert 0.0 == model[0].weight.item()
    average.write(model)
    assert 5.25 == model[0].weight.item()


def test_one_step_of_nesterov_by_hand(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    start = copy.deepcopy(model)
    training = Training(batch_size=1197, lr=0.1, momentum=0.9, weight_decay=0.01, schedule="constant")
    still = dataclasses.replace(digits, train=dataclasses.replace(digits.train, pixels=digits.validation.pixels))

    fit(model, still, training, Runtime(), images=1197, seed=0)

    inputs, labels = next(still.train.batches(torch.arange(1197), 1197))
    digits.loss(start(inputs), labels).backward()
    weight = start[1].weight
    decayed = weight.grad + 0.01 * weight.data
    expected = weight.data - 0.1 * (decayed + 0.9 * decayed)
    torch.testing.assert_close(model[1].weight.data, expected, rtol=1e-4, atol=1e-6)


def test_smoothing_and_distillation_enter_the_loss(digits, small):
    teacher = copy.deepcopy(small)
    teacher.linear.bias.data.add_(torch.arange(10.0))
    inputs, labels = next(digits.train.batches(torch.arange(128), 128))
    training = Training(label_smoothing=0.1, distill=0.25, temperature=3.0)
    loop = fit_module._Loop(small.eval(), digits, training, Runtime(), 128, 0, None, distillation.Teacher(teacher))
    small.eval()

    outputs, taught = small(inputs), teacher(inputs)
    expected = 0.75 * digits.loss(outputs, labels, 0.1) + 0.25 * distillation.distillation(outputs, taught, 3.0)
    torch.testing.assert_close(loop._loss(inputs, labels), expected)


class Counting(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.calls = model, 0

    def forward(self, x):
        self.calls += 1
        return self.model(x)


def test_a_teacher_answers_a_batch_once_and_the_training_is_the_same(digits, small):
    training, counting = Training(batch_size=100, lr=0.05, distill=0.5), Counting(digits.build())
    teacher, models = distillation.Teacher(counting), [copy.deepcopy(small) for _ in range(4)]
    forgetful = distillation.Teacher(digits.build(), memory=0)

    for model, asked in zip(models, (teacher, teacher, forgetful), strict=False):
        fit(model, digits, training, CPU, images=700, seed=3, teacher=asked)
    assert counting.calls == 7
    fit(models[3], digits, training, CPU, images=700, seed=4, teacher=teacher)

    assert counting.calls == 14  # another seed sees other batches
    for name, tensor in models[0].state_dict().items():
        assert torch.equal(tensor, models[1].state_dict()[name]), name
        assert torch.equal(tensor, models[2].state_dict()[name]), name


# --- fit --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", [CPU, Runtime(), Runtime(precision="bf16", channels_last=True)])
def test_digits_are_learnt_in_seconds(digits, runtime):
    model = digits.build()
    before = fit(copy.deepcopy(model), digits, Training(lr=0.05), runtime, images=128, seed=0).loss

    log = fit(model, digits, Training(lr=0.05), runtime, images=6400, seed=0)

    assert (50, 6400, False) == (log.steps, log.images, log.stopped)
    assert log.loss < 0.5 * before
    assert evaluate(model, digits.validation, digits, runtime) > 0.9
    assert not model.training
    assert all(p.grad is None and p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize(
    ("images", "batch", "steps"), [(0, 128, 0), (1, 128, 1), (320, 128, 2), (330, 128, 3), (5000, 2000, 4)]
)
def test_images_are_rounded_to_whole_batches(digits, small, images, batch, steps):
    log = fit(small, digits, Training(batch_size=batch, lr=0.001), CPU, images=images, seed=0)

    assert (steps, steps * min(batch, 1197)) == (log.steps, log.images)
    assert (log.loss is None) == (steps == 0)


def test_nothing_changes_without_images(digits, small):
    before = copy.deepcopy(small.state_dict())

    fit(small, digits, Training(ema=0.9), CPU, images=0, seed=0)

    assert all(torch.equal(before[name], tensor) for name, tensor in small.state_dict().items())
    assert not small.training


def test_same_seed_same_weights_and_another_seed_others(digits, small):
    def trained(seed):
        model = copy.deepcopy(small)
        fit(model, digits, Training(lr=0.05), CPU, images=1280, seed=seed)
        return model.linear.weight

    torch.manual_seed(5)
    first = trained(3)
    torch.manual_seed(6)

    assert torch.equal(first, trained(3))
    assert not torch.equal(first, trained(4))


def test_the_callers_random_state_is_untouched(digits, small):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    fit(small, digits, Training(), CPU, images=256, seed=0)
    recalibrate(small, digits, CPU, images=256, seed=0)

    assert torch.equal(expected, torch.rand(3))


def test_regulariser_hears_of_every_step(digits, small):
    regulariser = Recorder()

    fit(small, digits, Training(batch_size=300), CPU, images=1500, seed=0, regulariser=regulariser)

    assert regulariser.calls == [[name, step, 5] for step in range(5) for name in ("before", "after")]


def test_rungs_measure_the_validation_split_at_their_shares(digits, small):
    heard = []
    training = Training(batch_size=100, rungs=(0.0, 0.15, 0.5, 0.55, 1.0))

    log = fit(small, digits, training, CPU, images=1000, seed=0, on_rung=lambda *rung: heard.append(rung) or True)

    assert [200, 500, 600] == [images for images, _ in heard]
    assert all(0 <= accuracy <= 1 for _, accuracy in heard)
    assert (10, False) == (log.steps, log.stopped)


def test_a_rung_stops_the_training(digits, small):
    training = Training(batch_size=100, rungs=(0.3, 0.6))

    log = fit(small, digits, training, CPU, images=1000, seed=0, on_rung=lambda images, _: images < 600)

    assert (6, 600, True) == (log.steps, log.images, log.stopped)


def test_a_rung_shows_the_averaged_weights(digits, small):
    training = Training(batch_size=100, lr=0.05, ema=0.99, rungs=(0.5,))
    at_rung = []

    def measure(images, accuracy):
        at_rung.append(accuracy)
        return False

    fit(small, digits, training, CPU, images=1000, seed=0, on_rung=measure)

    # stopped at the rung, so that the model has the averaged weights of that moment
    assert at_rung == [evaluate(small, digits.validation, digits, CPU)]


class Interrupted(Exception):
    pass


def interrupt(images, accuracy):
    if images >= 600:
        raise Interrupted
    return True


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_resumed_run_gives_the_same_bits(digits, small, tmp_path, ema):
    training = Training(batch_size=100, lr=0.05, ema=ema, distill=0.5, rungs=(0.2, 0.4, 0.8))
    file, teacher = tmp_path / "state.pt", distillation.Teacher(digits.build())

    def run(model, regulariser, on_rung, checkpoint):
        return fit(
            model,
            digits,
            training,
            CPU,
            images=1500,
            seed=3,
            regulariser=regulariser,
            teacher=teacher,
            on_rung=on_rung,
            checkpoint=checkpoint,
        )

    whole, whole_regulariser, whole_heard = copy.deepcopy(small), Recorder(), []
    expected = run(whole, whole_regulariser, lambda *rung: whole_heard.append(rung) or True, None)
    with pytest.raises(Interrupted):
        run(copy.deepcopy(small), Recorder(), interrupt, file)
    resumed, regulariser, heard = copy.deepcopy(small), Recorder(), []
    actual = run(resumed, regulariser, lambda *rung: heard.append(rung) or True, file)

    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert whole_heard == heard
    assert whole_regulariser.calls == regulariser.calls
    assert (expected.loss, expected.steps, expected.stopped) == (actual.loss, actual.steps, actual.stopped)
    assert ["state.pt"] == [path.name for path in tmp_path.iterdir()]


def test_a_checkpoint_of_another_training_is_refused(digits, small, tmp_path):
    file = tmp_path / "state.pt"
    training = Training(batch_size=100, rungs=(0.5,))
    fit(small, digits, training, CPU, images=400, seed=3, on_rung=lambda *_: True, checkpoint=file)

    with pytest.raises(InputError, match="another training"):
        fit(small, digits, training, CPU, images=400, seed=4, checkpoint=file)
    file.write_bytes(b"torn")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        fit(small, digits, training, CPU, images=400, seed=3, checkpoint=file)


def test_divergence_names_step_and_loss(digits, small):
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step \d+ of 50"):
        fit(small, digits, Training(batch_size=100, lr=100, weight_decay=1), CPU, images=5000, seed=0)


def test_distillation_needs_a_teacher(digits, small):
    with pytest.raises(InputError, match="needs a teacher"):
        fit(small, digits, Training(distill=0.5), CPU, images=128, seed=0)


# --- evaluate, recalibrate, choose ------------------------------------------------------------------------------------


class Constant(nn.Module):
    """Answers the same class for every image, and remembers the mode it ran in."""

    def forward(self, x):
        self.mode = self.training
        return F.one_hot(torch.full((len(x),), 3), 10).float()


def test_evaluate_is_the_share_of_right_answers(digits):
    model = Constant().train()
    expected = (digits.test.labels == 3).double().mean().item()

    assert expected == evaluate(model, digits.test, digits, CPU)
    assert not model.mode
    assert model.training


def test_recalibrate_takes_the_mean_over_the_batches(digits):
    norm = nn.BatchNorm2d(1, momentum=0.3)
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(64, 10)).train()
    weight = model[2].weight.clone()

    recalibrate(model, digits, CPU, images=700, seed=5)

    order = torch.randperm(1197, generator=seeds.random_stream(5, 0))[:512]
    batches = [inputs for inputs, _ in digits.train.batches(order, 256, seed=5)]
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean() for x in batches]).mean().reshape(1))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var() for x in batches]).mean().reshape(1))
    assert 0.3 == norm.momentum
    assert not norm.training
    assert not model.training
    assert torch.equal(weight, model[2].weight)


def test_recalibrate_leaves_dropout_off_and_networks_without_norms_alone(digits):
    class Probe(nn.Dropout):
        def forward(self, x):
            self.ran_training = self.training
            return x

    model = nn.Sequential(Probe(), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10)).train()
    recalibrate(model, digits, CPU, images=256, seed=0)
    plain = nn.Linear(64, 10).train()
    recalibrate(plain, digits, CPU, images=256, seed=0)

    assert not model[0].ran_training
    assert not plain.training


def test_choose_runtime_measures_without_touching_the_model(digits, small):
    before = copy.deepcopy(small.state_dict())

    runtime = runtime_module.choose_runtime(small, digits.example().shape, 32, threads=1)

    assert ("cpu", False, 1) == (runtime.device, runtime.compile, runtime.threads)
    assert all(torch.equal(before[name], tensor) for name, tensor in small.state_dict().items())
    assert not small.training
    assert all(p.grad is None for p in small.parameters())


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((1.0, 1.0, 0.95, 0.95), ("fp32", True)),
        ((1.0, 1.0, 0.9, 1.0), ("bf16", True)),
        ((1.0, 0.8, 0.9, 1.0), ("fp32", False)),
        ((1.0, 0.95, 0.95, 0.7), ("bf16", False)),
    ],
)
def test_fewer_digits_and_odd_layouts_must_win_by_a_margin(monkeypatch, small, seconds, expected):
    monkeypatch.setattr(
        runtime_module, "_measure", lambda model, shape, options: dict(zip(options, seconds, strict=True))
    )

    runtime = runtime_module.choose_runtime(small, (1, 8, 8), 32, "cpu")

    assert expected == (runtime.precision, runtime.channels_last)


def test_slow_options_are_measured_less(monkeypatch, small):
    calls = []

    def timed(model, shape, runtime):
        calls.append(runtime.precision)
        return 1.0 if runtime.precision == "fp32" else 2.0

    monkeypatch.setattr(runtime_module, "_timed_pass", timed)
    options = [Runtime(), Runtime(precision="bf16")]

    assert [1.0, 2.0] == list(runtime_module._measure(small, (2, 1, 8, 8), options).values())
    assert (5, 2) == (calls.count("fp32"), calls.count("bf16"))


def test_threads_are_set_within_the_limits_only():
    before = torch.get_num_threads()

    with Runtime(threads=before + 1).limits():
        assert before + 1 == torch.get_num_threads()
    assert before == torch.get_num_threads()


def test_devices():
    assert runtime_module.pick_device("cpu") == "cpu"
    assert runtime_module.pick_device("auto") in {"cpu", "cuda"}
    with pytest.raises(InputError, match="no device 'gpu'"):
        runtime_module.pick_device("gpu")
    with pytest.raises(InputError, match="did you mean 'bf16'"):
        Runtime(precision="bf61")


def test_compiling_must_pay():
    assert fit_module.pays_to_compile(0.1, 3001)
    assert not fit_module.pays_to_compile(0.1, 2999)

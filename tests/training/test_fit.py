"""The training loop: arithmetic by hand, determinism, resuming to the bit, divergence, evaluation and recalibration."""

import copy

import pytest
import torch

from autoprune.errors import InputError
from autoprune.recipe import Training
from autoprune.training import distillation
from autoprune.training import fit as fit_module
from autoprune.training.evaluate import evaluate, recalibrate
from autoprune.training.fit import DivergedError, fit
from autoprune.training.notice import NOTICE, PausedByNoticeError
from autoprune.training.runtime import Runtime

CPU = Runtime(channels_last=True)


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


def test_smoothing_and_distillation_enter_the_loss(digits, small):
    teacher = copy.deepcopy(small)
    teacher.linear.bias.data.add_(torch.arange(10.0))
    inputs, labels = next(digits.train.batches(torch.arange(128), 128))
    training = Training(label_smoothing=0.1, distill=0.25, temperature=3.0)
    teach = distillation.Teacher(teacher)
    loop = fit_module.TrainingLoop(small.eval(), digits, training, Runtime(), 128, 0, None, teach)
    small.eval()

    outputs, taught = small(inputs), teacher(inputs)
    expected = 0.75 * digits.loss(small, (inputs, labels), training).value + 0.25 * distillation.distillation(
        outputs, taught, 3.0
    )
    batch = (inputs, labels)
    torch.testing.assert_close(loop.compute_loss(batch, loop.taught(batch)), expected)


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


def test_notice_of_the_end_of_the_process_pauses_at_the_next_step(digits, small, tmp_path, monkeypatch):
    """What goes on from there ends with the same bits as what was never interrupted."""
    training, file = Training(images=64 * 7, batch_size=64), tmp_path / "state.pt"
    whole, cut = copy.deepcopy(small), copy.deepcopy(small)
    fit(whole, digits, training, CPU, images=64 * 7, seed=3)
    monkeypatch.setattr(NOTICE, "given", True)
    fit(copy.deepcopy(small), digits, training, CPU, images=64 * 7, seed=3)  # nowhere to save it: it runs to its end
    with pytest.raises(PausedByNoticeError):
        fit(cut, digits, training, CPU, images=64 * 7, seed=3, checkpoint=file)
    assert torch.load(file, weights_only=True)["step"] == 1
    monkeypatch.setattr(NOTICE, "given", False)
    log = fit(cut, digits, training, CPU, images=64 * 7, seed=3, checkpoint=file)

    assert log.steps == 7
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))


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


def test_a_step_in_parts_is_the_step_of_the_whole_batch(digits):
    models = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    teacher = copy.deepcopy(models[0])
    logs = []
    for model, accumulate in zip(models, (1, 4), strict=True):
        training = Training(batch_size=44, lr=0.1, accumulate=accumulate, distill=0.3)
        teach = distillation.Teacher(teacher)
        logs.append(fit(model, digits, training, CPU, images=44 * 30, seed=5, teacher=teach))

    assert 30 == logs[0].steps == logs[1].steps
    assert logs[0].images == logs[1].images
    assert pytest.approx(logs[0].loss, rel=1e-4) == logs[1].loss
    torch.testing.assert_close(models[0][1].weight, models[1][1].weight, rtol=1e-3, atol=1e-5)


def test_a_batch_is_rounded_down_to_whole_parts():
    assert [44, 42, 40] == [fit_module.batch_of(Training(batch_size=44, accumulate=n), 1000) for n in (1, 3, 5)]
    assert 30 == fit_module.batch_of(Training(batch_size=44, accumulate=3), 32)
    with pytest.raises(InputError, match=r"training\.accumulate: 33 passes for a batch of 32; allowed: 1 to 32"):
        fit_module.batch_of(Training(batch_size=44, accumulate=33), 32)


def test_what_hears_a_whole_batch_is_not_trained_in_parts(digits, small):
    class Ear(Recorder):
        def listening(self, model):
            raise AssertionError

    with pytest.raises(InputError, match="Ear hears a step's batch in one pass"):
        fit(small, digits, Training(accumulate=2), CPU, images=256, seed=0, regulariser=Ear())


@pytest.mark.parametrize("optimizer", ["adamw", "adam"])
def test_other_optimisers_resume_to_the_bit(digits, small, tmp_path, optimizer):
    training = Training(batch_size=64, lr=0.01, optimizer=optimizer, rungs=(0.5,), accumulate=2, clip=1.0)
    whole, cut = copy.deepcopy(small), copy.deepcopy(small)
    fit(whole, digits, training, CPU, images=64 * 8, seed=3)

    stopped = fit(
        copy.deepcopy(cut),
        digits,
        training,
        CPU,
        images=64 * 8,
        seed=3,
        on_rung=lambda *_: False,
        checkpoint=tmp_path / "state.pt",
    )
    fit(cut, digits, training, CPU, images=64 * 8, seed=3, checkpoint=tmp_path / "state.pt")

    assert stopped.stopped
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, cut.state_dict()[name])

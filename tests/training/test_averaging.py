"""The moving average of weights."""

from torch import nn

from autoprune.training.averaging import MovingAverage


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

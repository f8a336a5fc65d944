"""What training asks of batches, whose structure it does not know."""

import contextlib

import torch
from torch import nn

from autoprune.training.protocols import images_in, listening


def test_the_images_of_a_batch_are_counted_whatever_holds_them():
    images = torch.zeros(7, 3, 5, 5)

    assert [7, 7, 7] == [images_in(batch) for batch in (images, (images, torch.zeros(1)), {"x": [images], "name": "a"})]


def test_only_a_listener_listens():
    class Ear:
        @contextlib.contextmanager
        def listening(self, model):
            model.heard = True
            yield

    model = nn.Identity()
    with listening(None, model), listening(object(), model):
        assert not hasattr(model, "heard")
    with listening(Ear(), model):
        assert model.heard

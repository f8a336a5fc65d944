"""What training asks of batches, whose structure it does not know."""

import contextlib

from torch import nn

from autoprune.training.protocols import listening


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

"""Random streams depend on numbers alone, and leave the caller's as they were."""

import torch

from autoprune.training.seeds import drawing_from, random_stream, seeded_randomness


def test_a_stream_depends_on_all_its_numbers_and_their_order():
    drawn = [
        torch.rand(3, generator=random_stream(*words)).tolist() for words in [(7, 1), (7, 1), (1, 7), (7,), (7, 2)]
    ]

    assert drawn[0] == drawn[1]
    assert 4 == len({tuple(values) for values in drawn})


def test_the_callers_stream_goes_on_where_it_was():
    torch.manual_seed(3)
    expected = torch.rand(2).tolist()
    torch.manual_seed(3)
    with seeded_randomness(11, "cpu"):
        inside = torch.rand(2).tolist()

    assert expected == torch.rand(2).tolist()
    assert expected != inside


def test_a_stream_lends_itself_to_the_default_generator_and_goes_on_there():
    torch.manual_seed(3)
    expected = torch.rand(2).tolist()
    torch.manual_seed(3)
    stream, whole = random_stream(7), torch.rand(4, generator=random_stream(7)).tolist()
    with drawing_from(stream):
        first = torch.rand(2).tolist()

    assert whole == first + torch.rand(2, generator=stream).tolist()
    assert expected == torch.rand(2).tolist()

"""Places for trials, counted again and again by a clock that the test winds."""

from autoprune.errors import InputError
from autoprune.search.on_ray.room import LOOK_SECONDS, Room


class Nodes:
    """So many places, and how often they were counted."""

    def __init__(self, places: int) -> None:
        self.places, self.counted, self.now = places, 0, 1000.0

    def __call__(self) -> int:
        self.counted += 1
        if not self.places:
            raise InputError("no node has what a trial needs")
        return self.places


def test_a_node_that_joins_is_seen_at_the_next_look_and_not_before() -> None:
    nodes = Nodes(3)
    room = Room(nodes, clock=lambda: nodes.now)
    before = room.now()
    nodes.places = 7
    at_once = room.now()
    nodes.now += LOOK_SECONDS

    assert (before, at_once, room.now(), nodes.counted) == (3, 3, 7, 2)


def test_no_more_than_the_study_wants() -> None:
    assert Room(Nodes(7), most=5).now() == 5
    assert Room(Nodes(3), most=5).now() == 3


def test_where_nothing_fits_one_trial_waits_for_a_place() -> None:
    assert Room(Nodes(0)).now() == 1
    assert Room(Nodes(3), most=0).now() == 1

"""When a search tries a new way to prune, and which one it repeats."""

from autoprune.search.proposing.ways import Way, way_to_repeat

L1, FPGM, TAYLOR = (Way({"method": name}) for name in ("l1", "fpgm", "taylor"))


def ended(way, *surprises):
    return Way(way.params, surprises)


def test_the_number_of_ways_grows_with_the_root_of_the_recipes():
    ways, counts = [], []
    for recipes in range(50):
        if way_to_repeat(ways, recipes) is None:
            ways.append(Way({"number": len(ways)}))
        counts.append(len(ways))
    assert [recipes for recipes in range(1, 50) if counts[recipes] > counts[recipes - 1]] == [1, 4, 9, 16, 25, 36, 49]


def test_the_way_is_repeated_whose_recipes_end_farthest_above_what_was_expected():
    ways = [ended(L1, -0.01, 0.01), ended(FPGM, 0.02, 0.01), ended(TAYLOR, -0.02)]
    assert way_to_repeat(ways, 5) is ways[1]


def test_a_way_is_not_repeated_before_anything_is_known_of_it():
    assert way_to_repeat([ended(L1, -0.02, -0.01), FPGM], 3).params == {"method": "l1"}


def test_one_lucky_recipe_does_not_beat_several_good_ones():
    # worth: 0.012 / 2 = 0.006 and 0.027 / 4 = 0.00675
    assert way_to_repeat([ended(L1, 0.009, 0.008, 0.010), ended(FPGM, 0.012)], 3).params == {"method": "l1"}

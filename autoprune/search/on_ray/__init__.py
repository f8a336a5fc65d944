"""The search on Ray Tune: one Tune trial is one trial segment, run by actors that live as long as the search.

Measured with Ray 2.60 on two cores: 2 to 3 s between trials with a fresh actor each, 60 ms with actors that stay. With
these, trials shorter than the spread of the actors' start times starve actors that are still starting (9 of 64 came
up); the start barrier and the newest-first scheduler prevent that.
"""

from autoprune.search.on_ray import settings  # noqa: F401 - before anything here imports Ray, which reads them

"""What may start at the end of a budget: paused trials that can still be completed, and nothing that cannot."""

import fakes

from autoprune.search.running.limits import Limits

RUNGS = (0.0, 0.25, 1.0)


def run(session, **options):
    fakes.run_here(session, rungs=(0.0, 0.25), **options)


def test_in_the_end_what_waits_gets_the_time_that_new_recipes_cannot_use(tmp_path):
    """A new recipe takes 1.1 + seconds and has no time left; a paused one needs less and goes to its end."""
    config = fakes.study_config(trials=8, rungs=RUNGS, keep=0.2)
    session = fakes.open_session(tmp_path, config, limits=Limits(trials=8, deadline=1e6))
    run(session)
    session.close()

    assert all(outcome.completed for outcome in session.outcomes)  # there is all the time in the world


def test_nothing_goes_on_that_cannot_come_to_its_end(tmp_path):
    config = fakes.study_config(trials=8, rungs=RUNGS, keep=0.2)
    session = fakes.open_session(tmp_path, config)
    fakes.stop_after(session, 9)
    run(session)
    session.interrupted = False
    waiting = len(session.paused.waiting)
    session.budget.limits = Limits(deadline=session.clock.now() + 0.5)  # the rest of any recipe takes 0.75 s and more

    assert waiting
    assert session.next() is None
    assert session.finished_handing_out()

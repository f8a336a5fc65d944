"""Workers that stay, on a real Ray: every trial ends once, whatever becomes of the workers."""

import fakes
import pytest

from autoprune.search.on_ray import executor as module
from autoprune.search.on_ray.executor import RayExecutor
from autoprune.search.on_ray.pool import workers_stay
from autoprune.study.folder import load_study


@pytest.mark.parametrize(
    ("workers", "seconds", "stay"),
    [(64, None, False), (65, None, True), (64, 13.0, False), (64, 12.0, True), (2, 0.3, True), (2, 60.0, False)],
)
def test_many_workers_stay_and_so_do_those_of_short_trials(workers, seconds, stay):
    assert workers_stay(workers, seconds) is stay


@pytest.mark.slow
@pytest.mark.usefixtures("workers_see_fakes")
def test_a_search_with_every_kind_of_failure_on_workers_that_stay(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(module, "workers_stay", lambda *_: True)
    session = fakes.open_session(tmp_path, fakes.study_config(trials=14, timeout=0.05, rungs=(0.0, 0.3, 1.0), keep=0.5))
    opener = fakes.OpenFake(
        trouble={3: "raise", 4: "tight", 5: "nan", 6: "exit", 7: "hang", 8: "gpu"}, rungs=(0.0, 0.3, 1.0)
    )
    with RayExecutor(session.config.resources) as executor:
        executor.run(session, opener)
    session.close()
    outcomes = {outcome.id: outcome for outcome in load_study(tmp_path).outcomes}
    errors = {number: outcome.error for number, outcome in outcomes.items() if outcome.status == "failed"}

    assert sorted(outcomes) == list(range(14))
    assert errors.pop(3) == "ValueError: a bad"
    assert errors.pop(5) == "the metric is nan"
    assert errors.pop(6).startswith("the worker process died 3 times: it crashed")
    assert errors.pop(7) == "no end after 0.05 minutes (resources.trial_timeout_minutes)"
    assert errors.pop(8).startswith("the worker process died 3 times: GpuFaultError: ")
    assert errors == {}
    assert any(len(outcome.legs) > 1 for outcome in outcomes.values() if outcome.id != 4)  # it paused
    assert session.progress().workers == "2 workers that stay, and take trials from a queue"
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.usefixtures("workers_see_fakes")
def test_an_interrupted_search_ends_at_once_though_workers_wait_and_run(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "workers_stay", lambda *_: True)
    session = fakes.open_session(tmp_path, fakes.study_config(trials=40))
    fakes.stop_after(session, 4)
    with RayExecutor(session.config.resources) as executor:
        executor.run(session, fakes.OpenFake(trouble=dict.fromkeys(range(8, 40), "hang")))

    assert 4 <= len(load_study(tmp_path).outcomes) <= 6  # what had ended already is kept
    assert {outcome.status for outcome in load_study(tmp_path).outcomes} == {"completed"}

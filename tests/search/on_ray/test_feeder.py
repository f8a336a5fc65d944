"""Feeder: a search through a queue of segments, with workers that take, end, and die."""

import asyncio
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import fakes
import pytest

from autoprune.errors import StudyError
from autoprune.search.on_ray import feeder as module
from autoprune.search.on_ray.deaths import Death
from autoprune.search.on_ray.feeder import Feeder
from autoprune.search.on_ray.segment_queue import SegmentQueue
from autoprune.search.on_ray.settings import ATTEMPTS, PUT_BACK
from autoprune.search.running.limits import Limits
from autoprune.search.running.segments import TrialSegment, run_segment
from autoprune.study.config import Budget
from autoprune.study.folder import load_study


class Cluster:
    """A queue in this process, with what Ray's handle to it looks like, and workers that are told when to act."""

    def __init__(self, path, monkeypatch, *, trials=6, workers=2, limits=None):
        monkeypatch.setattr(module.ray, "get", lambda answer: answer)
        self.session = fakes.open_session(path, fakes.study_config(trials=trials), limits=limits)
        self.queue, self.loop = SegmentQueue(), asyncio.new_event_loop()
        exchange = SimpleNamespace(remote=lambda *a, **k: self.wait_for(self.queue.exchange(*a, **k)))
        withdraw = SimpleNamespace(remote=lambda: self.wait_for(self.queue.withdraw()))
        self.feeder = Feeder(self.session, SimpleNamespace(exchange=exchange, withdraw=withdraw), lambda: workers)
        self.news = module.QueueNews(events=(), waiting=0, idle=0)
        self.evaluator = fakes.OpenFake()(self.session.clock)
        self.folder = path

    def wait_for(self, answer):
        """What the queue answers."""
        return self.loop.run_until_complete(answer)

    def turn(self):
        """The feeder offers and listens once."""
        self.news = self.feeder._turn(self.news)

    def take(self, worker, result=None):
        """The segment that a worker gets; None if there is none for it now."""
        try:
            taken = self.wait_for(asyncio.wait_for(self.queue.next(worker, result), 0.05))
        except TimeoutError:
            return None
        return taken and TrialSegment.from_plain(taken)

    def run(self, segment, worker):
        """What a worker says of a segment that it has run."""
        clock = self.session.clock
        done = run_segment(self.evaluator, segment, lambda *_: True, clock, self.folder, None, worker)
        return {"outcome": done.outcome.to_json()}


@pytest.fixture
def open_cluster(tmp_path, monkeypatch):
    """Opens clusters whose study lies in the test's folder."""
    with ExitStack() as stack:

        def open_one(**options):
            cluster = Cluster(tmp_path, monkeypatch, **options)
            stack.callback(cluster.loop.close)
            return cluster

        yield open_one


def test_a_search_through_the_queue_ends_every_trial_once(open_cluster, tmp_path):
    cluster = open_cluster(trials=9, workers=33)  # three segments ahead
    outcomes = dict.fromkeys("ab")
    while not cluster.feeder.ended.is_set():
        cluster.turn()
        for worker, outcome in outcomes.items():
            segment = cluster.take(worker, outcome)
            outcomes[worker] = segment and cluster.run(segment, worker)
    study = load_study(tmp_path)

    assert sorted(outcome.id for outcome in study.outcomes) == list(range(9))
    assert {outcome.worker for outcome in study.outcomes} == {"a", "b"}
    assert cluster.take("a") is None


def test_one_segment_is_drawn_ahead_for_sixteen_workers(open_cluster):
    cluster = open_cluster(trials=100, workers=40)
    cluster.turn()
    cluster.turn()

    assert cluster.news.waiting == 3
    assert len(cluster.session.running) == 3


def test_what_a_worker_had_that_died_is_run_by_another_one(open_cluster):
    cluster = open_cluster()
    cluster.turn()
    lost = cluster.take("a")
    cluster.turn()
    cluster.feeder.report_death("a", Death("killed"))
    while (found := cluster.take("b")) is None or found.proposal.id != lost.proposal.id:
        cluster.turn()

    assert found == lost


@pytest.mark.parametrize("left_state", [True, False])
def test_a_segment_whose_worker_is_taken_away_is_handed_out_before_new_ones(open_cluster, left_state):
    cluster = open_cluster()
    cluster.turn()
    paused = cluster.take("a")
    cluster.wait_for(cluster.queue.tell("a", {PUT_BACK: left_state}))
    cluster.turn()
    cluster.turn()
    found = cluster.take("b")

    assert found == replace(paused, resumed=left_state)


def test_a_trial_that_kills_its_workers_has_failed(open_cluster, tmp_path):
    cluster = open_cluster()
    cluster.turn()
    first = None
    for attempt in range(ATTEMPTS):
        name, segment = f"worker {attempt}", None
        while segment is None or segment.proposal.id != (first or segment).proposal.id:
            segment = cluster.take(name)
            cluster.turn()
        first = segment
        cluster.feeder.report_death(name, Death("it crashed"))
        cluster.turn()
    (outcome,) = load_study(tmp_path).outcomes

    assert (outcome.id, outcome.status) == (first.proposal.id, "failed")
    assert outcome.error == f"the worker process died {ATTEMPTS} times: it crashed"


def test_workers_that_die_before_they_take_anything_end_the_search(open_cluster):
    cluster = open_cluster(workers=2)
    for number in range(2 * ATTEMPTS - 1):
        cluster.feeder.report_death(str(number), Death("no module named cake"))
        cluster.turn()
    cluster.feeder.report_death("one more", Death("no module named cake"))

    with pytest.raises(StudyError, match=r"6 worker processes in a row died .* the last: no module named cake"):
        cluster.turn()


def test_what_nobody_has_begun_when_the_time_is_over_is_not_begun(open_cluster, tmp_path, monkeypatch):
    cluster = open_cluster(trials=None, workers=33, limits=Limits.of(Budget(minutes=1.0)))
    cluster.turn()
    running = cluster.take("a")
    cluster.turn()
    monkeypatch.setattr(cluster.session, "should_stop_running", lambda: True)
    monkeypatch.setattr(cluster.session, "finished_handing_out", lambda: True)
    cluster.turn()
    cluster.take("a", cluster.run(running, "a"))
    while not cluster.feeder.ended.is_set():
        cluster.turn()
    outcomes = load_study(tmp_path).outcomes

    assert {outcome.status for outcome in outcomes if outcome.id != running.proposal.id} == {"stopped"}
    assert {outcome.error for outcome in outcomes if outcome.status == "stopped"} == {"the search's time was over"}
    assert [outcome.status for outcome in outcomes if outcome.id == running.proposal.id] == ["completed"]


def test_what_the_dispatcher_raises_ends_the_feeder_and_is_raised_again(open_cluster, monkeypatch):
    cluster = open_cluster()

    def fail():
        raise OSError("no space left on device")

    monkeypatch.setattr(cluster.session, "next", fail)
    cluster.feeder.start()
    assert cluster.feeder.ended.wait(10)
    with pytest.raises(OSError, match="no space left on device"):
        cluster.feeder.stop()

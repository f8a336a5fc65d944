"""Segment queue: who waits gets what is offered, once; the driver hears who took and who ended what."""

import asyncio

from autoprune.search.on_ray.segment_queue import EXCHANGE_SECONDS, Event, SegmentQueue


def segments(*numbers):
    return [{"number": number} for number in numbers]


def run(scenario):
    """Let the coroutine function act on a queue of its own."""
    return asyncio.run(asyncio.wait_for(scenario(SegmentQueue()), 10))


def test_what_is_offered_is_taken_once_in_order():
    async def scenario(queue):
        await queue.exchange(segments(4, 5, 6), [])
        return [(await queue.next(worker))["number"] for worker in ("a", "b", "c")]

    assert run(scenario) == [4, 5, 6]


def test_the_driver_hears_who_took_what_and_who_ended_what_in_order():
    async def scenario(queue):
        await queue.exchange(segments(4, 5), [])
        await queue.next("a")
        await queue.next("a", {"outcome": "of 4"})
        return await queue.exchange(segments(7), [])

    news = run(scenario)

    assert news.events == (
        Event(worker="a", number=4),
        Event(worker="a", result={"outcome": "of 4"}),
        Event(worker="a", number=5),
    )
    assert (news.waiting, news.idle) == (1, 0)


def test_workers_wait_and_the_driver_hears_how_many():
    async def scenario(queue):
        waiting = [asyncio.create_task(queue.next(name)) for name in ("a", "b")]
        await asyncio.sleep(0)
        idle = (await queue.exchange([], [])).idle
        await queue.exchange(segments(9), [])
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await queue.exchange([], [], over=True)
        return idle, [task.result() for task in done], [await task for task in waiting]

    idle, first, both = run(scenario)

    assert idle == 2
    assert first == segments(9)
    assert sorted(both, key=bool) == [None, *segments(9)]


def test_a_worker_that_has_gone_gets_nothing_though_it_still_waits():
    async def scenario(queue):
        gone, other = (asyncio.create_task(queue.next(name)) for name in ("gone", "other"))
        await asyncio.sleep(0)
        await queue.exchange([], ["gone"])
        news = await queue.exchange(segments(3), [])
        return await gone, await other, news.idle

    nothing, segment, _ = run(scenario)

    assert nothing is None
    assert segment["number"] == 3


def test_news_come_at_once_and_no_news_after_a_moment():
    async def scenario(queue):
        loop = asyncio.get_running_loop()
        began = loop.time()
        await queue.exchange([], [])
        silent = loop.time() - began
        await queue.exchange(segments(1), [])
        asking = asyncio.create_task(queue.next("a"))
        news = await queue.exchange([], [])
        await asking
        return silent, news.events

    silent, events = run(scenario)

    assert silent >= 0.9 * EXCHANGE_SECONDS
    assert events == (Event(worker="a", number=1),)


def test_what_is_withdrawn_nobody_gets():
    async def scenario(queue):
        await queue.exchange(segments(1, 2, 3), [])
        await queue.next("a")
        numbers = await queue.withdraw()
        await queue.exchange([], [], over=True)
        return numbers, await queue.next("b")

    assert run(scenario) == ([2, 3], None)

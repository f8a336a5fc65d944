"""The table of processes and threads, by hand; no side is run."""

from autoprune.analysis.benchmarks.process_speed import Side, sides_of, table


def test_the_ratio_is_that_of_processes_to_threads_within_a_round():
    one, threads, processes = sides_of(3)
    speeds = {"net": {one: [5.0, 7.0, 9.0], threads: [10.0, 20.0, 40.0], processes: [15.0, 22.0, 20.0]}}

    assert (one, threads, processes) == (Side(1, 1), Side(1, 3), Side(3, 1))
    assert table(speeds, 3)[0].count("1 process of 3 threads, images/s") == 1
    assert table(speeds, 3)[-1] == "| net | 7 | 20 | 20 | 1.10 |"

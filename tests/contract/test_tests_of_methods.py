"""The tests of the methods can fail: what a paper says is broken in a copy of the package, and its test must notice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

RUN = "import sys, pytest, autoprune; print(autoprune.__file__); sys.exit(pytest.main(sys.argv[1:]))"


@dataclass(frozen=True)
class Mutation:
    """One property of a method and how to break it.

    Fields:
        file: in `autoprune/methods`.
        old: text that stands there once.
        new: what replaces it.
        test: in `tests/methods`, must fail.
    """

    file: str
    old: str
    new: str
    test: str


MUTATIONS = {
    "orthoreg: filters of length one, not zero": Mutation(
        "orthoreg.py",
        "_gram_diagonal(gram).sub_(1)",
        "_gram_diagonal(gram).sub_(0)",
        "test_orthoreg.py::test_the_penalty_by_hand",
    ),
    "increg: the mean of all ranks, not a moving average": Mutation(
        "increg.py",
        "(self.units.positions(norms) - self.mean_rank) / self.updates",
        "(self.units.positions(norms) - self.mean_rank) / 10",
        "test_increg.py::test_the_mean_rank_is_the_mean_of_all_ranks_so_far",
    ),
    "greg1: the penalty is raised at the first step": Mutation(
        "greg.py",
        "if step % self.schedule.every == 0:",
        "if step and step % self.schedule.every == 0:",
        "test_greg.py::test_the_penalty_of_a_pruned_filter_is_d_times_one_plus_the_floor_of_n_minus_one_over_k_until_tau",
    ),
    "greg2: filters are chosen by what they are after the first part": Mutation(
        "greg.py",
        "choose=lambda scores: allocate(context.graph, scores,",
        "choose=lambda _, scores=self.score(context): allocate(context.graph, scores,",
        "test_greg.py::test_greg2_presses_on_all_alike_and_then_takes_what_has_become_smallest",
    ),
    "sfp: filters that are zero go on training": Mutation(
        "soft.py",
        "torch.where(limited & (lengths > limit), limit / lengths.clamp_min(1e-30), 1.0)",
        "torch.where(limited, 0.0, 1.0)",
        "test_soft.py::test_nothing_blocks_the_gradient_of_a_zeroed_filter",
    ),
    "asfp: the rate rises": Mutation(
        "soft.py",
        "self.lost * self.rate(done) + 1e-9",
        "self.lost + 1e-9",
        "test_soft.py::test_a_moment_shrinks_the_smallest_filters_as_many_as_the_rate_says[asfp]",
    ),
    "srfp: the factor falls to zero": Mutation(
        "soft.py",
        "return self.start * (1 - rise(done, self.knee))",
        "return self.start",
        "test_soft.py::test_the_end_is_hard_and_the_cut_model_computes_the_same[srfp]",
    ),
    "asrfp: ASFP's rate and SRFP's factor": Mutation(
        "soft.py",
        'softer pruning at a rising rate"\n\n    def rate(',
        'softer pruning at a rising rate"\n\n    def another_rate(',
        "test_soft.py::test_rate_and_factor_at_the_beginning_the_knee_three_knees_and_the_end",
    ),
    "group_fisher: readers and positions are added up before the square": Mutation(
        "base/mask_gradients.py",
        "gradients = sums.new_zeros(self.count + 1, self.images).index_add_(0, units, sums)",
        "gradients = sums.new_zeros(self.count + 1, self.images).index_add_(0, units, sums.square()).sqrt()",
        "base/test_mask_gradients.py::"
        "test_the_score_is_the_sum_of_squared_per_sample_gradients_of_one_mask_for_all_readers[Residual stream]",
    ),
    "group_fisher: what is switched off stays so": Mutation(
        "group_fisher.py",
        "        if self.gone:\n            self.units.scale(model, self.factor)",
        "        if step == 0:\n            self.units.scale(model, self.factor)",
        "test_group_fisher.py::test_the_masked_model_computes_what_the_cut_one_does[Residual-offsets]",
    ),
    "group_fisher: one unit goes at a time, and what was gathered is forgotten": Mutation(
        "group_fisher.py",
        "self.sums.zero_()",
        "self.sums.mul_(0.5)",
        "test_group_fisher.py::test_one_unit_goes_every_d_steps_and_what_was_gathered_is_forgotten",
    ),
    "l0_hqs: the threshold is sqrt(2 lambda / beta)": Mutation(
        "l0_hqs.py",
        "math.sqrt(self.strength(0) / self.strength(k))",
        "self.strength(0) / self.strength(k)",
        "test_l0_hqs.py::test_the_v_step_is_the_exact_hard_threshold",
    ),
    "epruner: the zero of the diagonal counts in the preference": Mutation(
        "epruner.py",
        "np.median(similarity, axis=0)",
        "np.median(np.sort(similarity, axis=0)[:-1], axis=0)",
        "test_epruner.py::test_the_preference_is_the_median_of_the_column_with_the_zero_of_the_diagonal",
    ),
    "ldrf: the layer that is cut is fitted as well as its readers": Mutation(
        "base/reconstruction.py",
        "optimizer.step()",
        "optimizer.zero_grad()",
        "test_ldrf.py::test_both_factors_beat_one_and_one_beats_none[responses-1]",
    ),
    "ldrf: energy is squared singular values": Mutation(
        "base/decomposition.py",
        "energy = values.square()",
        "energy = values",
        "base/test_decomposition.py::test_capacity_is_the_smallest_rank_that_leaves_out_no_more",
    ),
    "channel_pruning: readers are fitted": Mutation(
        "base/reconstruction.py",
        "return self.start + change,",
        "return self.start + 0 * change,",
        "test_ldrf.py::test_without_steps_it_is_channel_pruning_and_for_1x1_the_least_squares_of_the_reader",
    ),
    "svd: an inner channel scores the square of its singular value": Mutation(
        "svd.py",
        "inputs.square().sum(1)",
        "inputs.abs().sum(1)",
        "test_svd.py::test_an_inner_channel_scores_its_squared_singular_value",
    ),
    "hinge: what the penalty would turn over is zero": Mutation(
        "hinge.py",
        "soft = (norms - weights).clamp_min(0)",
        "soft = norms - weights",
        "test_hinge.py::test_a_proximal_operator_is_the_best_of_all_values",
    ),
    "fuzzy: what is important stays though it is unimportant too": Mutation(
        "fuzzy.py",
        "1 - looseness) & ~important",
        "1 - looseness)",
        "test_fuzzy.py::test_strict_takes_what_is_unimportant_and_not_important",
    ),
}


@pytest.fixture
def package(root: Path, tmp_path: Path) -> Path:
    """A copy of the package that can be broken."""
    return Path(
        shutil.copytree(root / "autoprune", tmp_path / "autoprune", ignore=shutil.ignore_patterns("__pycache__"))
    )


def run_in(root: Path, package: Path, *tests: str) -> tuple[int, str]:
    """Exit status and output of these tests of the repository when they import this copy of the package."""
    names = [str(root / "tests" / "methods" / test) for test in tests]
    command = [sys.executable, "-P", "-c", RUN, *names, "-q", "--rootdir", str(root), "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout.startswith(f"{package / '__init__.py'}\n"), ran.stdout + ran.stderr
    return ran.returncode, ran.stdout


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_is_to_be_broken_is_there(name: str, root: Path) -> None:
    mutation = MUTATIONS[name]
    file, _, test = mutation.test.partition("::")

    assert (root / "autoprune" / "methods" / mutation.file).read_text().count(mutation.old) == 1
    assert f"def {test.partition('[')[0]}(" in (root / "tests" / "methods" / file).read_text()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_what_is_broken_is_noticed(name: str, root: Path, package: Path) -> None:
    mutation = MUTATIONS[name]
    file = package / "methods" / mutation.file
    source = file.read_text()
    file.write_text(source.replace(mutation.old, mutation.new))

    status, said = run_in(root, package, mutation.test)

    assert status == pytest.ExitCode.TESTS_FAILED, said
    assert re.search(r"^E  +AssertionError|^E  +assert ", said, re.MULTILINE), said
    assert re.search(r"^\d+ failed", said, re.MULTILINE), said
    assert "ERROR" not in said, said


@pytest.mark.long
@pytest.mark.slow
def test_all_is_well_in_the_copy_before_it_is_broken(root: Path, package: Path) -> None:
    status, said = run_in(root, package, *(mutation.test for mutation in MUTATIONS.values()))

    assert status == pytest.ExitCode.OK, said

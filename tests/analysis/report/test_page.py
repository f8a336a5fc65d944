"""The report as a file: what it says in every state of a study, and what it must never do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rmse_study

from autoprune.analysis.report.packing import unpacked
from autoprune.analysis.report.page import write_report
from autoprune.analysis.report.summary import summarise
from autoprune.errors import InputError
from autoprune.study import folder, pareto
from autoprune.study.folder import Study, load_study
from autoprune.study.log import append_line
from autoprune.study.outcome import BROKEN, Outcome


class Page(HTMLParser):
    """The parts of a page that tests ask for: text, tables by their first heading's section, links to elsewhere."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text: dict[str, str] = {}
        self.rows: dict[str, int] = {}
        self.elsewhere: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._section = "head"
        self._raw: str | None = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._raw = tag if tag in ("script", "style") else None
        if tag == "section":
            self._section = str(given["id"])
        if tag == "tr":
            self.rows[self._section] = self.rows.get(self._section, 0) + 1
        if tag == "script":
            self.scripts.append((given, ""))
        outside = [value for name, value in attrs if name in ("src", "href", "action", "data", "srcset") and value]
        self.elsewhere += [value for value in outside if not value.startswith(("#", "data:"))]

    def handle_data(self, data: str) -> None:
        if self._raw == "script":
            self.scripts[-1] = (self.scripts[-1][0], data)
        elif self._raw is None:
            self.text[self._section] = self.text.get(self._section, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._raw = None if tag == self._raw else self._raw

    def words(self, section: str) -> str:
        """The text of a section with single spaces."""
        return " ".join(self.text[section].split())

    def data(self) -> Any:
        """What the page's script draws from."""
        return json.loads(unpacked(next(text for given, text in self.scripts if given.get("id") == "data")))

    def trials(self, column: str) -> str:
        """A column of the table of trials as text."""
        return " ".join(str(value) for value in self.data()["trials"][column])


def page_of(study: Study) -> Page:
    return Page(write_report(study, study.folder.report))


def test_a_study_of_every_kind_of_trial(study: Study) -> None:
    page = page_of(study)
    members = pareto.front(study.outcomes)
    failed = sum(outcome.status == "failed" for outcome in study.outcomes)

    assert page.words("head").count("of the dense model's arithmetic (FLOPs) reaches") == 1
    assert page.rows["members"] == len(members) + 1
    assert page.data()["trials"]["id"] == [outcome.id for outcome in study.outcomes]
    assert f"{failed} failed trials are not drawn: why." in page.words("front")
    assert "DivergedError: the loss is nan at step 17" in page.words("failures")
    assert "reaches the output of the model (aten.addmm)" in page.words("frozen")
    assert "validation split (test[:5000])" in page.words("honest")
    assert "No accuracy on this page comes from the test split (test[5000:])" in page.words("honest")
    assert "trial 1, 5,000 images) reached 92.10 %, against 91.70 % before" in page.words("honest")
    assert "checkpoint: weights/resnet20.safetensors" in page.words("configuration")
    assert "Seed 13. python 3.11.2, torch 2.15.0." in page.words("configuration")
    assert "1 trial had begun and not ended" in page.words("facts")


def test_the_command_that_exports_a_member(make_study: Any, build: SimpleNamespace) -> None:
    study = make_study([build.completed(17, 0.4, 0.88)])

    # The folder's name has a space, so a shell needs it quoted.
    assert f"autoprune export '{study.folder.path}' --trial 17 --to trial-17" in page_of(study).words("members")


def test_nothing_comes_from_elsewhere(study: Study) -> None:
    page = page_of(study)

    assert page.elsewhere == []
    policy = re.search(r'Content-Security-Policy"\s+content="([^"]+)"', study.folder.report.read_text())
    assert policy is not None
    assert policy[1].split("; ")[0] == "default-src 'none'"
    assert "http" not in policy[1]


def test_names_and_errors_are_text(make_study: Any, build: SimpleNamespace) -> None:
    evil = "</script><script>alert(1)</script><img src=//x onerror=alert(2)>"
    study = make_study(
        [build.failed(1, evil), build.completed(2, 0.5, 0.8, evil, worker=evil, widths={evil: 3})],
        groups=[
            {"id": evil, "size": 5, "stage": 0, "frozen": None},
            {"id": "b", "size": 5, "stage": 0, "frozen": evil},
        ],
        versions={evil: evil},
        remarks=[evil],
    )
    page = page_of(study)

    assert len(page.scripts) == 3
    assert page.elsewhere == []
    assert all(evil in page.words(name) for name in ("failures", "members", "frozen", "configuration", "cost"))
    assert page.data()["trials"]["kept"] == [None, [3]]


class Passes(tuple[Outcome, ...]):  # noqa: SLOT001 (it counts)
    """Outcomes that count how often all of them are gone through."""

    count = 0

    def __iter__(self) -> Iterator[Outcome]:
        self.count += 1
        return super().__iter__()


def test_the_work_for_an_outcome_does_not_grow_with_their_number(make_study: Any, build: SimpleNamespace) -> None:
    study, counts = make_study(build.many_outcomes(59)), []
    for times in (1, 5):
        outcomes = [replace(one, id=one.id + 59 * turn) for turn in range(times) for one in study.outcomes]
        repeated = replace(study, outcomes=Passes(outcomes))
        write_report(repeated, study.folder.report)
        counts.append(repeated.outcomes.count)

    assert counts[0] == counts[1] < 100


def test_the_front_is_worked_out_once(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    fronts, work_out = [], pareto.front
    monkeypatch.setattr(folder, "front", lambda *given: fronts.append(given) or work_out(*given))

    write_report(study, study.folder.report)

    assert fronts == [(study.outcomes, study.tradeoff)]


class TestStates:
    def test_no_outcomes(self, make_study: Any) -> None:
        page = page_of(make_study([]))

        assert "No trial has ended yet." in page.words("head")
        assert "no trial has measured an accuracy yet." in page.words("front")
        assert "The front is empty" in page.words("members")
        assert page.rows["methods"] == 3  # the heading and the two controls, which are always compared with
        assert "No trial failed." in page.words("failures")
        assert "No dense control was completed" in page.words("honest")

    def test_only_failures(self, make_study: Any, build: SimpleNamespace) -> None:
        page = page_of(make_study([build.failed(i, "OutOfMemoryError: 3 GiB") for i in range(1, 8)]))

        assert "All 7 trials failed, all of them with: OutOfMemoryError: 3 GiB" in page.words("head")
        assert (
            "7 trials (taylor): the first error in full OutOfMemoryError: 3 GiB Trials 1, 2, 3, 4, 5, 6, 7"
            in page.words("failures")
        )
        assert "No member of the front was cut" in page.words("widths")

    def test_one_member(self, make_study: Any, build: SimpleNamespace) -> None:
        page = page_of(make_study([build.completed(3, 0.37, 0.88)]))

        assert "1 model, cheapest first" in page.words("members")
        assert page.data()["trials"]["kept"] == [[10, 12, 19, 41]]  # 17, 19, 31, 67 times sqrt(0.37) = 0.608

    def test_only_stopped_trials(self, make_study: Any, build: SimpleNamespace) -> None:
        page = page_of(make_study([build.stopped(3, 0.37, 0.6)]))

        assert "there is no front" in page.words("head")
        assert (page.trials("ended"), page.trials("metric")) == ("stopped", "0.6")
        assert page.data()["chosen"] == 3

    def test_two_thousand_outcomes(self, make_study: Any, build: SimpleNamespace) -> None:
        study = make_study(build.many_outcomes(2_000))
        page = page_of(study)

        kept = page.data()["trials"]["kept"]
        assert len(kept) == 2_000
        assert sum(widths is not None for widths in kept) == sum(bool(outcome.widths) for outcome in study.outcomes)

    def test_trials_that_were_cut_in_other_groups(self, make_study: Any, build: SimpleNamespace) -> None:
        """A method that prunes only some layers says nothing of the other groups: they are whole."""
        study = make_study([build.completed(1, 0.4, 0.8, widths={"conv1": 3}), build.completed(2, 0.3, 0.7)])
        data = page_of(study).data()

        assert [group["size"] for group in data["groups"]] == [17, 19, 31, 67]
        assert data["trials"]["kept"][0] == [3, 19, 31, 67]


def test_only_what_varies_is_listed(make_study: Any, build: SimpleNamespace) -> None:
    outcomes = [
        build.completed(1, 0.5, 0.8, recipe=build.recipe("bn_scale", 0.5, lr=0.0123456)),
        build.completed(2, 0.5, 0.8, recipe=build.recipe("l1", 0.5, lr=0.03)),
    ]
    words = page_of(make_study(outcomes)).trials("varied")

    assert "bn_scale.share 0.5" in words
    assert "bn_scale.penalty 0.0001" in words
    assert "lr 0.01235" in words
    assert "momentum" not in words
    assert "batch_size" not in words


def test_what_methods_found_stands_beside_their_trials(make_study: Any, build: SimpleNamespace) -> None:
    notes = {"gap_violated": True, "gap_after": 13.0625}
    outcomes = [build.completed(1, 0.5, 0.8, notes=notes), build.completed(2, 0.4, 0.7)]

    assert page_of(make_study(outcomes)).data()["trials"]["notes"] == ["gap_violated yes, gap_after 13.06", ""]


def test_an_unwritable_place(study: Study, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent/report\.html: cannot write: No such file or directory"):
        write_report(study, tmp_path / "absent" / "report.html")


class TestThreeObjectives:
    @pytest.fixture
    def timed(self, make_study: Any, build: SimpleNamespace) -> Study:
        """13 is beaten in accuracy and FLOPs, and faster; 19 broke a constraint."""
        numbers = [(11, 0.25, 0.75, 0.7), (13, 0.3, 0.45, 0.65), (17, 0.75, 0.5, 0.9)]
        outcomes = [
            build.completed(number, flops, accuracy, latency_ratio=latency, latency_ms=20 * latency)
            for number, flops, latency, accuracy in numbers
        ]
        error = f"{BROKEN}latency_ms 26 > 25"
        broken = build.stopped(19, 0.4, 0.5, rungs=(), latency_ratio=1.3, latency_ms=26.0, error=error)
        objectives = ["accuracy", "flops", "latency"]
        return make_study([*outcomes, broken], objectives=objectives, latency={"batch": 7})

    def test_costs_are_in_the_tables_and_in_words(self, timed: Study) -> None:
        page = page_of(timed)

        assert (
            "A model with 25.0 % of the dense model's arithmetic (FLOPs) and 75.0 % of its time (15 ms) reaches 70.0 % "
            "accuracy (68.7 to 71.3 %, as far as 5,000 images can tell), 21.7 points below the dense model's 91.7 %."
        ) in page.words("head")
        # 0.75 * 0.25 * 0.7 + 0.7 * 0.55 * 0.65 + 0.25 * 0.5 * 0.9, less what two share, and once more what all do
        assert "Hypervolume 0.2959 against accuracy 0 and FLOPs and latency ratios 1." in page.words("facts")
        assert "75.0 % (15 ms)" in page.words("members")
        assert "stopped (constraint: latency_ms 26 > 25)" in page.trials("ended")
        assert "latency_ms ≤ 25 ended 1 recipe, 25 % of all that were cut; the nearest had 26." in page.words("trust")
        assert "1 stopped early (1 of them by a constraint)" in page.words("facts")
        assert "one forward pass of 7 images (batch 7)" in page.words("honest")
        assert page.rows["members"] == 4

    def test_the_line_joins_those_that_nothing_beats_in_what_is_drawn(self, timed: Study) -> None:
        figure = page_of(timed).data()["figures"]["front"]
        line = next(trace for trace in figure["data"] if trace["name"] == "front")
        marked = {number for trace in figure["data"] if trace.get("meta") == "front" for number in trace["customdata"]}

        assert line["x"] == [0.25, 0.75]
        assert marked == {11, 13, 17}
        assert "The line joins those that no other beats in the two that are drawn" in page_of(timed).words("front")

    def test_accuracy_is_drawn_against_the_first_cost(self, make_study: Any, build: SimpleNamespace) -> None:
        study = make_study(
            [build.completed(3, 0.4, 0.8, latency_ratio=1.3, latency_ms=26.0)], objectives=["latency", "accuracy"]
        )
        page = page_of(study)
        figure = page.data()["figures"]["front"]

        assert figure["layout"]["xaxis"]["title"]["text"] == "Latency relative to the dense model"
        assert figure["layout"]["xaxis"]["range"] == pytest.approx([0, 1.04 * 1.3])
        assert page.data()["axes"][0]["key"] == "latency"
        assert "No model came down to half the latency: the cheapest, with 130.0 % of" in page.words("head")

    def test_without_times_there_are_no_columns_for_them(self, study: Study) -> None:
        page = page_of(study)

        assert set(page.data()["trials"]["latency_ms"]) == {None}
        assert "Latency" not in page.words("members")
        assert [axis["key"] for axis in page.data()["axes"]][:3] == ["flops", "params", "activations"]


#: Two seeds of a member at 40 % FLOPs, one at 70 %, and of the dense control: validation, test.
NUMBERS = {3: ((0.91, 0.885), (0.93, 0.875)), 5: ((0.94, 0.905), (0.95, 0.9)), 1: ((0.95, 0.921), (0.97, 0.931))}


@pytest.fixture
def finished(make_study: Any, build: SimpleNamespace) -> Study:
    """A study with two members and a control, all of which were trained again; one training has failed."""
    trials = {
        1: build.completed(1, 1.0, 0.93, "dense", control=True),
        3: build.completed(3, 0.4, 0.88),
        5: build.completed(5, 0.7, 0.9, "taylor"),
    }
    study = make_study(trials.values())
    runs = [again(trials[member], seed, numbers) for member in NUMBERS for seed, numbers in enumerate(NUMBERS[member])]
    runs.append(replace(runs[0], recipe=replace(runs[0].recipe, seed=2), status="failed", error="no memory"))
    for number, run in enumerate(runs):
        append_line(study.folder.finalists, replace(run, id=number).to_json())
    return load_study(study.folder.path)


def again(member: Outcome, seed: int, numbers: tuple[float, float]) -> Outcome:
    training = replace(member.recipe.training, images=25_000)
    recipe = replace(member.recipe, training=training, seed=seed)
    return replace(member, recipe=recipe, member=member.id, metric=numbers[0], test_metric=numbers[1])


def words(study: Study) -> str:
    page = write_report(study, study.folder.report).read_text(encoding="utf-8")
    return " ".join(page.split()).replace("\N{NO-BREAK SPACE}", " ")


def test_the_table_of_finalists(finished: Study) -> None:
    page = words(finished)
    section = page.split('<section id="finalists"')[1].split("</section>")[0]
    rows = [row.split("</tr>")[0] for row in section.split("<tr>")[2:]]

    assert '<a href="#finalists">Finalists</a>' in page
    assert "trained again on 25,000 images each" in section
    assert "The test split (<code>test[5000:]</code>) was read once" in section
    assert [row.split('scope="row">')[1].split("<")[0] for row in rows] == ["3", "5", "1"]
    # (0.91 + 0.93) / 2, 0.02 / sqrt(2); (0.885 + 0.875) / 2, 0.01 / sqrt(2); 0.88 - (0.921 + 0.931) / 2
    for text in ("92.00 % ± 1.41", "88.00 % ± 0.71", "\N{MINUS SIGN}4.6 points", ">40.0 %<"):
        assert text in rows[0]
    assert "dense (control)" in rows[2]
    assert rows[2].count("points") == 1  # against what was searched; nothing is compared with itself
    assert "1 training did not complete and is left out" in section


def test_the_page_says_where_the_test_split_was_read(finished: Study, make_study: Any) -> None:
    page = words(finished)

    assert "No accuracy on this page comes from the test split" not in page
    assert 'But for the <a href="#finalists">finalists</a>, every accuracy on this page is on the validation' in page


def test_a_study_without_finalists_says_that_too(study: Study) -> None:
    page = words(study)

    assert "#finalists" not in page
    assert "No accuracy on this page comes from the test split" in page
    assert "<li>Every accuracy on this page is on the validation split" in page


def test_the_head_names_the_finalist_within_the_budget(finished: Study) -> None:
    fact = summarise(finished).facts[0].replace("\N{NO-BREAK SPACE}", " ")

    assert fact == (
        "Trained again with 2 seeds, on the test split: 88.0 % ± 0.7 (dense 92.6 % ± 0.7) at 40.0 % FLOPs, "
        "trial 3, method l1."
    )


def test_a_study_of_a_metric_to_minimise(tmp_path: Path) -> None:
    page = page_of(load_study(rmse_study.write(tmp_path / "trees", finalists=True).path))
    words = {section: page.words(section).replace("\N{MINUS SIGN}", "-") for section in page.text}

    assert (
        "A model with 40.0 % of the dense model's arithmetic (FLOPs) reaches 2.5 cm ± 0.28 rmse on the test split "
        "(2 trainings), 1.1 cm above the dense model's 1.4 cm ± 0.28."
    ) in words["head"]
    assert "Values of rmse are on the validation split" in words["facts"]
    assert "3 models, cheapest first" in words["members"]
    assert "7 taylor 1.8 cm ± 0.14 +0.4 cm 40.0 % 40.0 % 40.0 %" in words["members"]
    assert "Dense model: 1.4 cm rmse, 1,000,003 FLOPs" in words["members"]
    # Validation 1.9 and 1.7, test 2.3 and 2.7; the search had 2.1, the control 1.2 and 1.6 on the test split.
    assert "7 taylor 2 40.0 % 1.8 cm ± 0.14 -0.3 cm 2.5 cm ± 0.28 +1.1 cm" in words["finalists"]
    assert "taylor 2.1 cm 2.1 cm 2.1 cm 1 1 0 0 l1 2.9 cm 1.4 cm 2.9 cm 2 3 1 1" in words["methods"]
    assert "against rmse without end (that of the half height is 1.4 cm) and FLOPs ratio 1" in words["cost"]
    assert "accurac" not in " ".join(words.values()).lower()


def test_the_axis_of_a_metric_to_minimise_says_which_end_is_good(tmp_path: Path) -> None:
    page = page_of(load_study(rmse_study.write(tmp_path / "trees").path))
    drawn = page.data()["figures"]

    axis = drawn["front"]["layout"]["yaxis"]
    assert (axis["title"]["text"], axis["tickformat"]) == ("Validation rmse (cm, smaller is better)", ".4~g")
    assert axis["range"] == pytest.approx([1.4 - 0.08 * 2.8, 4.2 + 0.08 * 2.8])
    line = next(trace for trace in drawn["front"]["data"] if trace.get("name") == "front")
    assert (list(line["x"]), list(line["y"])) == ([0.2, 0.4, 0.7], [4.2, 2.1, 1.4])
    # 1/5 by 1/4, then 3/10 by 2/5, then 3/10 by 1/2: 0.32.
    assert "it ended at 0.3200" in page.words("cost")


def test_a_model_that_misses_the_limit_is_marked(tmp_path: Path) -> None:
    study = load_study(rmse_study.write(tmp_path / "trees", constraints={"metric": 2.1}).path)
    page = page_of(study)

    assert [member.id for member in study.front] == [7, 11]
    assert "(2 without rmse <= 2.1)" in page.words("facts")
    assert page.trials("ended").count("(misses the limit)") == 2
    nothing = load_study(rmse_study.write(tmp_path / "lost", constraints={"metric": 0.7}).path)
    assert "No pruned model has rmse <= 0.7, so there is no front." in page_of(nothing).words("head")

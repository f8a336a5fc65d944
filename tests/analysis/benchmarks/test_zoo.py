"""The benchmark over whole libraries: nothing it is given is lost, and every promise it checks can fail."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn

from autoprune.analysis.benchmarks import zoo, zoo_case, zoo_checks, zoo_models, zoo_table
from autoprune.analysis.benchmarks.zoo_models import Entry
from autoprune.analysis.benchmarks.zoo_weights import randomise
from autoprune.engine.keep import Keep
from autoprune.engine.tracing.trace import trace
from autoprune.errors import InputError

NAMED_BY_THE_ISSUE = (
    "convnextv2 efficientnet regnet resnest hrnet densenet dla dpn ghostnet mobilenetv3 mobilenetv4 mobileone repvgg "
    "cspdarknet vovnet res2net selecsls nfnet fasternet edgenext"
)


def entry(name: str, **changes: Any) -> Entry:
    """A net of tests/nets.py as if a library listed it."""
    return replace(Entry("nets", name, "small", f"nets:{name}", {}, 9), **changes)


def row_of(found: Entry, *, quick: bool = True) -> dict[str, Any]:
    """The last row that `measure` reports, here, without a process of its own."""
    rows: list[dict[str, Any]] = []
    zoo_case.measure(found, quick=quick, seconds=100, seed=0, report=rows.append)
    return rows[-1]


class TestSteps:
    @pytest.mark.parametrize("name", sorted(nets.NETS))
    def test_small_nets_pass_every_check_of_a_quick_look(self, name: str) -> None:
        row = row_of(entry(name))

        assert [list(zoo_table.failures(row)), set(row["checks"])] == [[], {s.name for s in zoo_case.STEPS if s.quick}]
        assert row["checks"]["trace"]["lost"] > 0.4
        assert row["checks"]["cost"]["half"]["flops"] == row["checks"]["cost"]["half"]["counted_flops"] > 0

    def test_models_of_other_packages_have_to_meet_a_target_of_half_the_flops(self) -> None:
        row = row_of(entry("Residual", library="wild", shapes=((3, 9, 9),)))

        assert zoo_table.passes(row)
        assert row["checks"]["target"]["ratio"] == pytest.approx(0.5, abs=0.01)
        assert set(row["checks"]) == {step.name for step in zoo_case.WILD_STEPS if step.quick}

    @pytest.mark.slow
    def test_a_full_run_exports_and_says_how_far_the_file_is_off(self) -> None:
        row = row_of(entry("Residual"), quick=False)

        assert zoo_table.passes(row)
        assert row["checks"]["onnx"]["relative_error"]["onnx"] < 1e-4

    def test_a_model_that_cannot_run_is_a_row_with_the_reason(self) -> None:
        row = row_of(entry("Chain", size=2))

        assert "Kernel size can't be greater than actual input size" in row["checks"]["build"]["reason"]
        assert row["checks"]["trace"] == {"ok": False, "skipped": True, "reason": "not run: build failed"}
        assert len(list(zoo_table.failures(row))) == 1

    def test_a_model_that_shows_nothing_of_its_cut_is_vacuous(self, tmp_path: Path) -> None:
        net = nets.randomised(nets.Residual())
        net.head.weight.data.zero_()
        case = zoo_case.Case(entry("Residual"), 0, tmp_path, (nets.image(),), net)
        zoo_case.traced(case)
        zoo_case.cut(case)

        with pytest.raises(zoo_checks.CheckError, match="vacuous: dense and cut differ by 0"):
            zoo_case.equal(case)

    def test_masked_and_cut_that_differ_are_compared_in_double_and_then_refused(self, tmp_path: Path) -> None:
        case = zoo_case.Case(entry("Residual"), 0, tmp_path)
        for step in (zoo_case.build, zoo_case.traced, zoo_case.cut):
            step(case)
        case.cut.head.bias.data += 1

        with pytest.raises(zoo_checks.CheckError, match="in float64") as caught:
            zoo_case.equal(case)
        assert caught.value.numbers["difference64"] == pytest.approx(caught.value.numbers["difference"], rel=1e-3)
        assert case.cut.head.weight.dtype == torch.float32

    def test_a_cut_model_that_no_longer_trains_is_refused_one_that_never_did_runs_in_eval(self, tmp_path: Path) -> None:
        case = zoo_case.Case(entry("Chain"), 0, tmp_path, (nets.image(),))
        case.dense, case.cut = Auxiliary(7, 7), Auxiliary(3, 7)
        with pytest.raises(zoo_checks.CheckError, match="runs in train mode, the cut one does not: Given groups=1"):
            zoo_case.backward(case)

        case.dense = Auxiliary(7, 5)
        found = zoo_case.backward(case)
        assert (found["mode"], found["reached"], found["trained"]) == ("eval", 2, 4)

    def test_a_group_that_is_no_longer_found_is_said(self, tmp_path: Path) -> None:
        case = zoo_case.Case(entry("Chain"), 0, tmp_path)
        for step in (zoo_case.build, zoo_case.traced, zoo_case.cut):
            step(case)
        case.half = Keep.all()

        with pytest.raises(zoo_checks.CheckError, match="no longer prunable"):
            zoo_case.again(case)

    def test_a_step_that_takes_too_long_is_stopped(self, tmp_path: Path) -> None:
        def spin(_case: zoo_case.Case) -> dict[str, Any]:
            while True:
                pass

        found = zoo_case.attempt(zoo_case.Step("spin", spin), zoo_case.Case(entry("Chain"), 0, tmp_path), {}, seconds=1)

        assert found["reason"] == "StepTimeoutError: more than 1 s"


class TestChecks:
    def test_difference_is_relative_and_infinite_where_nothing_can_be_compared(self) -> None:
        one = torch.tensor([2.0, -4.0])

        assert zoo_checks.difference({"a": one, "b": [one]}, {"a": one, "b": [one + 1]}) == pytest.approx(0.25)
        assert zoo_checks.difference(one, one[:1]) == float("inf")
        assert zoo_checks.difference(one, one * float("nan")) == float("inf")
        with pytest.raises(zoo_checks.CheckError, match="the output is empty"):
            zoo_checks.difference([one[:0]], [one[:0]])

    def test_a_model_that_scales_its_inputs_in_place_gets_the_same_ones_in_every_run(self) -> None:
        images = (torch.ones(2, 3),)

        assert torch.equal(*(zoo_checks.run(InPlace(), images) for _ in range(2)))
        assert zoo_checks.gradients(InPlace(), images) == {"reached": 1, "trained": 1}
        assert images[0].eq(1).all()

    def test_flops_of_the_encoder_layers_fast_path_are_counted(self) -> None:
        layer = nn.TransformerEncoderLayer(12, 3, 7, batch_first=True).eval()
        tokens, batch, width = 5, 2, 12
        products = 3 * width * width + width * width + 2 * tokens * width + 2 * 7 * width

        with zoo_checks.counted() as counter:
            zoo_checks.run(layer, (torch.randn(batch, tokens, width),))

        assert counter.get_total_flops() == 2 * batch * tokens * products
        assert torch.backends.mha.get_fastpath_enabled()

    def test_flops_of_recurrent_layers_are_counted(self) -> None:
        steps, batch, inputs, hidden = 3, 2, 5, 7
        with zoo_checks.counted() as counter:
            zoo_checks.run(nn.LSTM(inputs, hidden), (torch.randn(steps, batch, inputs),))

        assert counter.get_total_flops() == 2 * steps * batch * 4 * hidden * (inputs + hidden)

    def test_a_cost_that_torch_does_not_count_is_refused(self) -> None:
        net = nets.randomised(nets.Chain())
        graph = trace(net, nets.image())

        assert zoo_checks.agreement(graph, Keep.all(), net, (nets.image(),))["flops"] > 0
        with pytest.raises(zoo_checks.CheckError, match="flops, torch counts"):
            zoo_checks.agreement(graph, zoo_checks.half(graph, 0), net, (nets.image(),))

    def test_gradients_that_reach_nothing_or_are_not_finite_are_refused(self) -> None:
        net, image = nets.randomised(nets.Residual()), nets.image()
        trained = len(list(net.parameters()))

        assert zoo_checks.gradients(net, (image,)) == {"reached": trained, "trained": trained}
        with pytest.raises(zoo_checks.CheckError, match="not finite"):
            zoo_checks.gradients(net, (image * float("inf"),))
        for parameter in net.parameters():
            parameter.data.zero_()
        with pytest.raises(zoo_checks.CheckError, match="reach no parameter"):
            zoo_checks.gradients(net, (image,))

    @pytest.mark.parametrize(
        ("module", "attribute", "value"),
        [
            (nn.Conv2d(6, 4, 1, groups=2), "in_channels", 7 * 2),
            (nn.ConvTranspose2d(3, 5, 1), "out_channels", 4),
            (nn.Linear(3, 5), "in_features", 4),
            (nn.BatchNorm2d(5), "num_features", 4),
            (nn.LayerNorm(5), "normalized_shape", (4,)),
            (nn.GroupNorm(2, 6), "num_channels", 4),
            (nn.PReLU(5), "num_parameters", 4),
            (nn.Embedding(5, 3), "embedding_dim", 4),
            (nn.MultiheadAttention(6, 2), "embed_dim", 4),
            (nn.MultiheadAttention(6, 2), "num_heads", 1),
        ],
    )  # fmt: skip
    def test_a_size_that_is_not_so_is_found(self, module: nn.Module, attribute: str, value: object) -> None:
        net = nn.Sequential(module)
        assert zoo_checks.untrue(net) == []

        setattr(module, attribute, value)

        assert len(zoo_checks.untrue(net)) >= 1

    def test_keeps_are_half_of_every_group_and_ragged(self) -> None:
        graph = trace(nets.Concat(), nets.image())
        ragged = zoo_checks.random_keep(graph, 3).widths(graph)

        assert zoo_checks.half(graph, 0).widths(graph) == {g.id: g.size // 2 for g in graph.prunable}
        assert len(set(ragged.values())) > 1
        assert zoo_checks.random_keep(graph, 3) == zoo_checks.random_keep(graph, 3)

    def test_frozen_groups_are_counted_with_the_flops_they_hold(self) -> None:
        graph = trace(nets.Chain(), nets.image())
        found = zoo_checks.reach(graph, zoo_checks.half(graph, 0))

        assert found["frozen"] == 1
        assert [reason for reason, _ in found["reasons"]] == ["reaches the model's output"]
        assert found["rigid"] == 0
        assert 0.4 < found["lost"] < 1 - found["smallest"]


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        x *= 255
        return x * self.gain


class Auxiliary(nn.Module):
    """A head that runs in train mode only, for `wanted` channels; the body has `width`."""

    def __init__(self, width: int, wanted: int) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, width, 1), nn.Conv2d(wanted, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.head(x) if self.training else x


class Damped(nn.Module):
    """A residual branch that its library starts at 0, and a layer scale at 1e-6."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.gamma = nn.Parameter(torch.full((3, 1, 1), 1e-6))
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.norm(self.conv(x * 1000))


class TestWeights:
    def test_what_libraries_start_at_zero_is_of_order_one(self) -> None:
        net = randomise(Damped(), (nets.image(),), 0)

        assert all(0.5 <= value <= 1.5 for value in [*net.norm.weight.tolist(), *net.gamma.flatten().tolist()])
        assert not net.training

    def test_statistics_fit_the_activations_without_being_theirs(self) -> None:
        net, image = randomise(Damped(), (nets.image(),), 0), nets.image()
        normed = (net.norm(net.conv(image * 1000)) - net.norm.bias[:, None, None]) / net.norm.weight[:, None, None]

        assert 0.3 < normed.std() < 3
        assert normed.mean((0, 2, 3)).abs().max() > 0.02

    def test_the_same_seed_gives_the_same_weights(self) -> None:
        one, two, other = (randomise(Damped(), (nets.image(),), seed) for seed in (0, 0, 1))

        assert torch.equal(one.conv.weight, two.conv.weight)
        assert not torch.equal(one.conv.weight, other.conv.weight)


class TestProcess:
    """Each model has a process of its own: what ends it is the row."""

    @pytest.fixture(autouse=True)
    def _light(self) -> None:
        import multiprocessing

        multiprocessing.get_context("forkserver").set_forkserver_preload([zoo_case.__name__])

    def test_a_crash_is_a_row(self) -> None:
        row = zoo.supervise(entry("crash", function="os:abort"), zoo.Limits(), quick=True)

        assert row["checks"] == {"build": {"ok": False, "reason": "the process ended with SIGABRT"}}
        assert (row["model"], row["limits"]["memory"]) == ("crash", zoo.Limits.memory)

    def test_a_model_that_hangs_is_a_row(self) -> None:
        hangs = entry("hangs", function="subprocess:check_call", options={"args": ["sleep", "600"]})
        row = zoo.supervise(hangs, zoo.Limits(total=5), quick=True)

        assert list(row["checks"].values()) == [{"ok": False, "reason": "more than 5 s for the model"}]

    def test_running_out_of_memory_is_a_row(self) -> None:
        wants = entry("wants", function="torch:ones", options={"size": (3 * 2**28,)})
        row = zoo.supervise(wants, zoo.Limits(memory=2), quick=True)

        assert "memory" in row["checks"]["build"]["reason"]


class TestProgram:
    def test_rows_are_kept_a_second_call_measures_what_is_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        listed = [entry("Chain"), entry("Concat"), entry("Shuffle", size=0)]
        rows = {found.name: row_of(found) for found in listed}
        measured: list[str] = []

        def supervise(found: Entry, limits: zoo.Limits, *, quick: bool, seed: int) -> dict[str, Any]:
            measured.append(found.name)
            return {**rows[found.name], "quick": quick, "limits": vars(limits), **zoo.conditions()}

        monkeypatch.setattr(zoo, "supervise", supervise)
        monkeypatch.setattr(zoo, "entries", lambda _library: listed)
        out, table = tmp_path / "rows.jsonl", tmp_path / "table.md"

        def call(*words: str) -> str:
            monkeypatch.setattr(
                sys, "argv", ["zoo", "timm", "--quick", "--out", str(out), "--table", str(table), *words]
            )
            zoo.main()
            return capsys.readouterr().out

        call("--models", "Chain")
        assert "Listed but not measured: Concat, Shuffle" in table.read_text()
        said = call()
        assert measured == ["Chain", "Concat", "Shuffle"]
        call("--again", "--models", "Concat")
        assert measured[3:] == ["Concat"]
        assert [json.loads(line)["model"] for line in out.read_text().splitlines()] == measured
        assert "every check: 2 of 3" in said
        assert "- Shuffle: build: " in table.read_text()
        assert "Listed but not measured" not in table.read_text()

    def test_a_quick_row_does_not_stand_for_a_full_one(self) -> None:
        chosen = [entry("Chain"), entry("Concat")]
        before = {"Chain": {"quick": True}, "Concat": {"quick": False}}

        assert zoo.missing(chosen, before, quick=False) == chosen[:1]
        assert zoo.missing(chosen, before, quick=True) == []

    def test_a_pattern_that_matches_nothing_is_refused(self) -> None:
        assert zoo_models.select([entry("Chain"), entry("Concat")], ["Con*"]) == [entry("Concat")]
        with pytest.raises(SystemExit, match="'Cha' matches no model"):
            zoo_models.select([entry("Chain")], ["Cha"])


class TestTable:
    def test_failures_and_small_losses_have_their_reason_below_the_table(self) -> None:
        good, bad = row_of(entry("Chain")), row_of(entry("Concat"))
        bad["checks"]["equal"] = {"ok": False, "reason": "masked | cut differ"}
        bad["checks"]["trace"] |= {"lost": 0.125, "reasons": [["an operation", 0.75]]}
        for row in (good, bad):
            row |= {"machine": "here", "versions": "torch 1", "limits": {"total": 3, "memory": 2}}

        text = zoo_table.table("timm", ["Chain", "Concat"], {"Chain": good, "Concat": bad})

        grid = [line for line in text.splitlines() if line.startswith("| C")]
        assert [line.count("|") for line in grid] == [len(zoo_table.COLUMNS) + 1] * 2
        assert [zoo_table.RAN in line for line in grid] == [False, True]
        assert "- Concat: equal: masked / cut differ" in text
        assert "- Concat: an operation (75%)" in text
        assert "- equal: 1 of 2" in text
        assert "not run" in grid[0]

    def test_models_of_other_packages_say_why_channels_are_frozen_and_what_no_dense_model_does(self) -> None:
        row = row_of(entry("Chain", library="wild", family="nets"))
        row |= {"machine": "here", "versions": "torch 1", "version": "1.2", "limits": {"total": 3, "memory": 2}}
        row["checks"]["trace"]["reasons"] = [
            ["an operation", 0.07],
            ["little", 0.02],
            ["reaches the model's output", 0.9],
        ]
        row["checks"] |= {"program": {"ok": True, "error": 1e-6}, "onnx": {"ok": True, "not_dense": "no such operator"}}

        text = zoo_table.table("wild", ["Chain"], {"Chain": row})

        grid = next(line for line in text.splitlines() if line.startswith("| Chain"))
        assert grid.count("|") == len(zoo_table.WILD_COLUMNS) + 1
        assert "| nets 1.2 | 9 |" in grid
        assert grid.endswith("| 1e-06 | nor the dense one |")
        assert "- Chain: an operation (7%)\n" in text
        assert "- Chain: onnx: no such operator" in text


class TestLists:
    def test_the_wild_list_has_seventy_models_of_fifteen_packages_with_names_of_their_own(self) -> None:
        found = zoo_models.entries("wild")
        names = [e.name for e in found]

        assert len(names) == len(set(names)) >= 70
        assert len({e.package for e in found}) >= 15
        assert {e.package for e in found} >= {"ultralytics", "segmentation-models-pytorch", "transformers", "monai"}
        assert all(e.shapes for e in found)

    def test_a_model_of_a_missing_package_says_what_to_install(self) -> None:
        wants = entry("wants", function="no_such_package.nets:net", install="pip install --no-deps no-such-package six")

        with pytest.raises(InputError, match="named 'no_such_package'; allowed: pip install --no-deps no-such"):
            wants.build()
        assert wants.package == "no-such-package"

    def test_inputs_have_the_shapes_that_are_listed(self) -> None:
        found = entry("two", shapes=((1, 5, 7), ()))

        assert [tuple(tensor.shape) for tensor in found.inputs()] == [(2, 1, 5, 7), (2,)]
        assert found.extent == "1x5x7 + 1"

    def test_torchvisions_list_is_complete(self) -> None:
        assert len(zoo_models.entries("torchvision")) == zoo_models.CLASSIFIERS == 80

    def test_timms_list_has_sixty_models_of_forty_families_those_of_the_issue_among_them(self) -> None:
        timm = pytest.importorskip("timm")
        if not timm.is_model("cspnext_tiny"):
            pytest.skip("the list is of a later timm")
        found = zoo_models.entries("timm")
        names = [e.name for e in found]

        assert len({timm.models.model_entrypoint(e.options["model_name"]).__module__ for e in found}) >= 40
        assert len(names) == len(set(names)) >= 60
        assert [n for n in NAMED_BY_THE_ISSUE.split() if not any(name.startswith(n) for name in names)] == []

    def test_detectors_get_a_list_of_images_and_targets_to_train_with(self) -> None:
        found = {e.name: e for e in zoo_models.entries("dense-prediction")}
        mask_rcnn = found["maskrcnn_resnet50_fpn"]

        assert [tuple(image.shape) for image in mask_rcnn.inputs()[0]] == [(3, 128, 128)] * 2
        assert set(mask_rcnn.targets()[0][0]) == {"boxes", "labels", "masks"}
        assert found["fcn_resnet50"].targets() == ()
        assert tuple(found["fcn_resnet50"].inputs()[0].shape) == (2, 3, 128, 128)

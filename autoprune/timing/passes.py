"""A forward pass of a model where it will run: PyTorch, compiled PyTorch, onnxruntime, OpenVINO, or a user's runtime.

A pass is a function without arguments that runs the model once, waits for the device and returns the seconds. What it
takes to build one, a conversion of seconds, is not part of any timing.
"""

from __future__ import annotations

import copy
import importlib.util
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import ExportError, InputError, ModelError, first_line
from autoprune.study.constraints import AUTO, Latency
from autoprune.tasks.user_code import call, load_function
from autoprune.timing.cuda_graph import captured_pass
from autoprune.timing.muted import exporters_muted
from autoprune.training.batch_structure import moved
from autoprune.training.runtime import Runtime

Pass = Callable[[], float]
Clock = Callable[[], float]
Inputs = tuple[Any, ...]


def build_pass(model: nn.Module, inputs: Inputs, latency: Latency, runtime: Runtime) -> Pass:
    """A pass of the model as `latency` says that it is deployed.

    Args:
        model: in any mode; it is copied.
        inputs: of a forward pass.
        runtime: device and memory format of PyTorch's passes; the threads, where `latency` says none.

    Raises:
        InputError: the runtime's package is not installed.
        ExportError: the model cannot be converted for it.
    """
    chosen = resolved(latency, runtime.device)
    check_runtime(chosen, runtime.device)
    twin = copy.deepcopy(model).eval()
    if ":" in chosen.runtime:
        return _build_own(twin, inputs, chosen, runtime)
    return _BUILDERS[chosen.runtime](twin, inputs, chosen, runtime)


def resolved(latency: Latency, device: str) -> Latency:
    """The same with what `auto` stands for: on a GPU the replayed graph in bfloat16, else PyTorch in float32."""
    on_gpu = device.startswith("cuda")
    runtime = ("graph" if on_gpu else "eager") if latency.runtime == AUTO else latency.runtime
    dtype = ("bfloat16" if runtime == "graph" else "float32") if latency.dtype == AUTO else latency.dtype
    if runtime == "graph" and not on_gpu:
        raise InputError(
            f"graph needs a GPU, and this is {device}",
            where="latency.runtime",
            allowed="eager, compile, onnxruntime, openvino",
        )
    return Latency(batch=latency.batch, runtime=runtime, dtype=dtype, threads=latency.threads)


def check_runtime(latency: Latency, device: str) -> None:
    """Raise `InputError` if passes cannot run so on that device: a package is missing, or there is no GPU."""
    needed = _PACKAGES.get(resolved(latency, device).runtime, ())
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        extra = "openvino" if "openvino" in needed else "onnx"
        what = f"{', '.join(missing)} not installed; run: pip install 'autoprune[{extra}]'"
        raise InputError(what, where="latency.runtime")


def on_clock(run: Callable[[], object], clock: Clock = time.perf_counter) -> Pass:
    """A pass that a clock times, which is read before and after."""

    def timed() -> float:
        began = clock()
        run()
        return clock() - began

    return timed


def _build_eager(model: nn.Module, inputs: Inputs, latency: Latency, runtime: Runtime) -> Pass:
    return _of_torch(*_placed(model, inputs, latency, runtime), runtime.device)


def _build_compiled(model: nn.Module, inputs: Inputs, latency: Latency, runtime: Runtime) -> Pass:
    placed, given = _placed(model, inputs, latency, runtime)
    return _of_torch(torch.compile(placed), given, runtime.device)


def _build_graph(model: nn.Module, inputs: Inputs, latency: Latency, runtime: Runtime) -> Pass:
    return captured_pass(*_placed(model, inputs, latency, runtime), runtime.device)


def _placed(model: nn.Module, inputs: Inputs, latency: Latency, runtime: Runtime) -> tuple[nn.Module, Inputs]:
    """Model and inputs on the device, in the type and memory format that are timed; whole numbers stay."""
    kind = getattr(torch, latency.dtype)
    typed = tuple(
        one.to(kind) if isinstance(one, Tensor) and one.is_floating_point() else one
        for one in moved(inputs, runtime.device)
    )
    return runtime.place(model).to(kind), runtime.arrange(typed)


def _of_torch(model: Callable[..., object], inputs: Inputs, device: str) -> Pass:
    def run() -> None:
        with torch.inference_mode():
            model(*inputs)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    return on_clock(run)


def _build_onnxruntime(model: nn.Module, inputs: Inputs, latency: Latency, runtime: Runtime) -> Pass:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = _threads(latency, runtime)
    with tempfile.TemporaryDirectory(prefix="autoprune-onnx-") as folder:
        file = Path(folder) / "model.onnx"
        try:
            with exporters_muted():
                _export_onnx(model.cpu(), inputs, file)
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # some twenty unrelated types
            raise ExportError(f"onnxruntime: {first_line(error, 200)}", where="latency.runtime") from error
    names = [given.name for given in session.get_inputs()]
    given = dict(zip(names, _arrays(inputs), strict=True))
    return on_clock(lambda: session.run(None, given))


def _export_onnx(model: nn.Module, inputs: Inputs, file: Path) -> None:
    """By torch's older exporter, which takes 0.3 to 0.9 s of a ResNet-50, where the newer one takes 5.4 s.

    What it cannot export the newer one does. onnxruntime takes as long for both within 2 % (ResNet-50, MobileNet-V2,
    EfficientNet-B0).
    """
    try:
        torch.onnx.export(model, inputs, file, dynamo=False)
    except Exception:  # noqa: BLE001 - the newer one says what is wrong, if anything
        torch.onnx.export(model, inputs, file, dynamo=True, external_data=False, verbose=False)


def _build_openvino(model: nn.Module, inputs: Inputs, latency: Latency, runtime: Runtime) -> Pass:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": _threads(latency, runtime), "PERFORMANCE_HINT": "LATENCY"}
    try:
        with exporters_muted():
            converted = openvino.convert_model(model.cpu(), example_input=inputs)
        request = openvino.compile_model(converted, "CPU", settings).create_infer_request()
    except Exception as error:  # the same
        raise ExportError(f"openvino: {first_line(error, 200)}", where="latency.runtime") from error
    given = _arrays(inputs)
    return on_clock(lambda: request.infer(given))


def _build_own(model: nn.Module, inputs: Inputs, latency: Latency, runtime: Runtime) -> Pass:
    """By a user's function, `build(model, inputs)`: both are on the device; it gives a function that runs one pass."""
    build = load_function(latency.runtime, "latency.runtime")
    placed, given = _placed(model, inputs, latency, runtime)
    arguments = {"model": placed, "inputs": given}
    run = call(latency.runtime, build, arguments, where="latency.runtime", kind=ModelError)
    if not callable(run):
        what = f"{latency.runtime} gave a {type(run).__name__}"
        raise ModelError(what, where="latency.runtime", allowed="a function without arguments that runs one pass")
    return on_clock(run)


def _arrays(inputs: Inputs) -> list[Any]:
    if not all(isinstance(one, Tensor) for one in inputs):
        what = "inputs that are no tensors, as detectors have"
        raise ExportError(what, where="latency.runtime", allowed="eager, for such a model")
    return [tensor.cpu().contiguous().numpy() for tensor in inputs]


def _threads(latency: Latency, runtime: Runtime) -> int:
    return latency.threads or runtime.threads or torch.get_num_threads()


#: What runtimes need beside PyTorch.
_PACKAGES = {"onnxruntime": ("onnxruntime", "onnx", "onnxscript"), "openvino": ("openvino",)}
_BUILDERS: Mapping[str, Callable[[nn.Module, Inputs, Latency, Runtime], Pass]] = {
    "eager": _build_eager,
    "compile": _build_compiled,
    "graph": _build_graph,
    "onnxruntime": _build_onnxruntime,
    "openvino": _build_openvino,
}

"""Whole programs for the model card: they run a file of an export with what reads it, NumPy or torch, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.export.layout import ONNX, PROGRAM


def onnx_example(record: Mapping[str, Any]) -> str:
    """A program that runs the ONNX file with plain onnxruntime."""
    path, shape = record["files"][ONNX][0], tuple(record["input"])
    opened = f'session = onnxruntime.InferenceSession("{path}", providers=["CPUExecutionProvider"])'
    head = f"import numpy as np\nimport onnxruntime\n\n{opened}\n"
    if record.get("one_by_one"):
        return f"""{head}
image = np.zeros({shape}, np.float32)  # yours: channels, height, width, from 0 to 1
boxes, scores, labels = session.run(None, {{"image": image}})
for box, score, label in zip(boxes, scores, labels):
    print(box.round(1), round(float(score), 3), label)
"""
    return f"""{head}
{_pixels_in_numpy(record)}
names = [given.name for given in session.get_inputs()]
outputs = session.run(None, dict(zip(names, inputs)))
print(*(output.shape for output in outputs))
print(outputs[0].argmax(axis=1))  # the class of each image, of a classifier
"""


def program_example(record: Mapping[str, Any]) -> str:
    """A program that runs the exported program with plain PyTorch."""
    shown = """
    logits = model(*inputs)
print(tuple(logits.shape))
print(logits.argmax(dim=1))  # the class of each image, of a classifier"""
    if record.get("outputs", ["logits"]) != ["logits"]:
        shown = """
    outputs = model(*inputs)
for output in outputs.values() if isinstance(outputs, dict) else outputs:
    print(tuple(output.shape))"""
    return f"""import torch

model = torch.export.load("{record["files"][PROGRAM][0]}").module()

{_pixels_in_torch(record)}
with torch.inference_mode():{shown}
"""


def _pixels_in_numpy(record: Mapping[str, Any]) -> str:
    shape, facts = tuple(record["input"]), _pixel_facts(record)
    if facts is None:
        zeros = ", ".join(f"np.zeros((2, {_sizes(shape)}), np.float32)" for shape in _inputs(record))
        return f"inputs = [{zeros}]  # yours, normalised as in training"
    scale, mean, std = facts
    return f"""# Yours, as stored: N, height, width, channels.
pixels = np.zeros((2, {_sizes(_stored(shape))}), np.float32)
mean, std = np.float32({mean}), np.float32({std})
inputs = [((pixels / {scale:g} - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)]"""


def _pixels_in_torch(record: Mapping[str, Any]) -> str:
    shape, facts = tuple(record["input"]), _pixel_facts(record)
    if facts is None:
        zeros = ", ".join(f"torch.zeros(2, {_sizes(shape)})" for shape in _inputs(record))
        return f"inputs = [{zeros}]  # yours, normalised as in training"
    scale, mean, std = facts
    return f"""# Yours, as stored: N, height, width, channels.
pixels = torch.zeros(2, {_sizes(_stored(shape))})
mean, std = torch.tensor({mean}), torch.tensor({std})
inputs = [((pixels / {scale:g} - mean) / std).permute(0, 3, 1, 2).contiguous()]"""


def _pixel_facts(record: Mapping[str, Any]) -> tuple[float, list[float], list[float]] | None:
    """Scale, mean and std of stored pixels, if the task says them and the input is an image."""
    pixels = record.get("pixels") or {}
    if "mean" not in pixels or len(record["input"]) != 3 or len(_inputs(record)) > 1:
        return None
    return float(pixels["scale"]), list(pixels["mean"]), list(pixels["std"])


def _inputs(record: Mapping[str, Any]) -> list[list[int]]:
    """The shape of every input, without its batch."""
    return list(record.get("inputs") or [record["input"]])


def _stored(shape: tuple[int, ...]) -> tuple[int, ...]:
    channels, height, width = shape
    return height, width, channels


def _sizes(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))

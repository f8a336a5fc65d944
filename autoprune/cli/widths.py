"""widths: the tables of times by width that `round_to: auto` goes by, and a new one of this machine."""

from __future__ import annotations

import datetime as dt
import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from autoprune.cli.view import print_json, show


def widths(args: Namespace) -> None:
    """List the tables; with `--out` measure one."""
    if args.out is None:
        _list(as_json=args.json)
    else:
        _measure(args)


def _list(*, as_json: bool) -> None:
    from autoprune.engine.allocation.width_times import load_width_times, shipped_devices

    rows = [{"device": name, "measured on": load_width_times(name).device} for name in shipped_devices()]
    if as_json:
        print_json(rows)
    else:
        show(rows)


def _measure(args: Namespace) -> None:
    import torch

    from autoprune.engine.allocation.width_times import WidthTimes
    from autoprune.files import write_atomically
    from autoprune.schema import read
    from autoprune.study.constraints import Latency
    from autoprune.timing.passes import resolved
    from autoprune.timing.width_times import measure_curves
    from autoprune.training.runtime import Runtime, pick_device

    _check_new_file(args.out)
    device = pick_device(args.device)
    threads = args.threads or torch.get_num_threads()
    asked = {name: getattr(args, name) for name in ("batch", "runtime", "dtype", "threads")}
    latency = resolved(read(Latency, asked, "widths"), device)
    curves = []
    for curve in measure_curves(latency, Runtime(device=device, channels_last=device != "cpu", threads=threads)):
        curves.append(curve)
        print(f"{curve.kind}, {curve.positions} positions: {_briefly(curve.us)}", flush=True)
    times = WidthTimes(device=_words(latency, device, threads), curves=tuple(curves))
    write_atomically(args.out, json.dumps(times.to_dict(), indent=1) + "\n")
    print(f"allocation: {{round_to: auto, device: {args.out}}}")


def _check_new_file(out: Path) -> None:
    """Refuse before minutes are spent."""
    from autoprune.errors import InputError

    if out.suffix != ".json":
        raise InputError(f"found {out}", where="--out", allowed="a file that ends with .json")
    if out.exists():
        raise InputError("already exists", where=str(out), allowed="a new file")
    if not os.access(out.parent, os.W_OK):
        raise InputError(
            "nothing can be written there", where=str(out), allowed="a file in an existing, writable folder"
        )


def _briefly(us: dict[str, float]) -> str:
    return ", ".join(f"{width}: {us[width]:.0f} us" for width in ("16", "24", "32", "40", "48", "64") if width in us)


def _words(latency: Any, device: str, threads: int) -> str:
    """What the table was measured on, for people."""
    import torch

    from autoprune.timing.machine import machine_name

    machine = machine_name(device) if device.startswith("cuda") else f"{machine_name(device)}, {threads} threads"
    how = f"{latency.runtime}, {latency.dtype}, batch {latency.batch}, torch {torch.__version__}"
    return f"{machine}, {how}, {dt.datetime.now(dt.UTC).date().isoformat()}"

"""What layers of each width take on a device: tables that were measured there, shipped by name or in a user's file.

Time by width is a table, not a multiple. A 3x3 convolution of 65 channels takes an H100 in bf16 four and a half times
as long as one of 64, one of 80 longer than one of 96; onnxruntime on a CPU with AVX-512 works on 16 channels at once,
and takes for 20 what it takes for 32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from autoprune.engine.graph import Floats
from autoprune.errors import InputError, brief_repr, check_name
from autoprune.schema import choices, read, to_plain, within

#: Tables of devices by name; a table that a user has measured is a file of the same form.
SHIPPED = Path(__file__).parent / "width_tables"
#: Layers whose kernel sees several positions, one, and those of which every channel has a kernel of its own.
KINDS = ("spatial", "pointwise", "depthwise")
#: Beyond the widest measured layer times go on as they do in its last so many widths: no kernel has longer blocks.
PERIOD = 64


@dataclass(frozen=True, kw_only=True)
class WidthCurve:
    """What layers of one kind and size take by their width.

    Fields:
        kind: of the layer; see `KINDS`.
        positions: of its output, height times width.
        area: of its kernel, height times width.
        us: width -> microseconds of a layer with so many channels on both sides.
    """

    kind: str = field(metadata=choices(*KINDS))
    positions: int = field(metadata=within(1, 2**40))
    area: int = field(metadata=within(1, 2**20))
    us: Mapping[str, float] = field(metadata=within(0, 10**12, open_low=True))

    def __post_init__(self) -> None:
        if not self.us or not all(width.isascii() and width.isdigit() and int(width) for width in self.us):
            allowed = "widths as whole numbers above 0, at least one"
            raise InputError(f"widths {brief_repr(list(self.us))}", where="curves.us", allowed=allowed)

    @property
    def widths(self) -> list[int]:
        """The measured widths, ascending."""
        return sorted(int(width) for width in self.us)

    def time(self, widths: ArrayLike) -> Floats:
        """Microseconds at any widths, shape (n,): interpolated, and beyond the widest as in its last `PERIOD`."""
        wanted = np.asarray(widths, dtype=np.float64)
        known = np.array(self.widths, dtype=np.float64)
        periods = np.ceil(np.maximum(wanted - known[-1], 0) / PERIOD)
        like = np.maximum(wanted - PERIOD * periods, known[0])
        growth = (wanted / like) ** (1 if self.kind == "depthwise" else 2)
        found = np.interp(like, known, [self.us[str(int(width))] for width in known])
        return np.asarray(np.where(periods > 0, found * growth, found))


@dataclass(frozen=True, kw_only=True)
class WidthTimes:
    """Curves that were measured on one device.

    Fields:
        device: in words, for people: machine, runtime, type, threads or batch, and when.
        curves: at least one.
    """

    device: str
    curves: tuple[WidthCurve, ...]

    def __post_init__(self) -> None:
        if not self.curves:
            raise InputError("no curves", where="curves", allowed="at least one")

    def curve(self, kind: str, positions: float) -> WidthCurve:
        """The curve of a layer of that kind whose size is nearest; of another kind where none was measured."""
        alike = [curve for curve in self.curves if curve.kind == kind] or self.curves
        return min(alike, key=lambda curve: abs(np.log(curve.positions / positions)))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as a file holds them."""
        plain: dict[str, Any] = to_plain(self)
        return plain


def shipped_devices() -> list[str]:
    """The names of the tables that come with the package."""
    return sorted(file.stem for file in SHIPPED.glob("*.json"))


@lru_cache(maxsize=16)
def load_width_times(device: str) -> WidthTimes:
    """The table of a device: a shipped one by name, or a file of the user's.

    Raises:
        InputError: no such table, or a file that holds none.
    """
    file = Path(device)
    if file.suffix != ".json":
        file = SHIPPED / f"{check_name(device, shipped_devices(), kind='device', where='allocation.device')}.json"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {device}: {error.strerror}", where="allocation.device") from None
    except ValueError:
        allowed = "a file that `autoprune widths` has written"
        raise InputError(f"{device} is no JSON", where="allocation.device", allowed=allowed) from None
    return read(WidthTimes, data, device)

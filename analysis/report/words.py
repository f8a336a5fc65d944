"""Numbers of a report in words."""

from __future__ import annotations

from autoprune.analysis.report import facts
from autoprune.study.outcome import Outcome


def percent(ratio: float, digits: int = 1) -> str:
    """0.8914 -> `89.1 %` (with a no-break space)."""
    return f"{100 * ratio:.{digits}f}\N{NO-BREAK SPACE}%"


def points(difference: float) -> str:
    """0.026 -> `+2.6 points`; negative ones have a true minus sign."""
    number = f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")
    return f"{'±0.0' if number[1:] == '0.0' else number}\N{NO-BREAK SPACE}points"


def duration(seconds: float) -> str:
    """5423 -> `1 h 30 min`, 598 -> `9 min 58 s`, 7.4 -> `7 s`."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def plural(count: int, noun: str) -> str:
    """`1 trial`, `2,000 trials`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def cost_text(name: str, outcome: Outcome) -> str:
    """One cost of an outcome: `49.3 % FLOPs`, `61.0 % latency (3.2 ms)`."""
    ratio = outcome.costs[name]
    time = outcome.latency_ms if name == "latency" else None
    return f"{percent(ratio or 0.0)} {facts.COST_NAMES[name]}" + ("" if time is None else f" ({milliseconds(time)})")


def milliseconds(time: float) -> str:
    """5.0417 -> `5.04 ms`."""
    return f"{time:.3g}\N{NO-BREAK SPACE}ms"

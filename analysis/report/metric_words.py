"""A study's metric in the words of a report: values, differences, headings and axes, whatever the metric."""

from __future__ import annotations

from autoprune.study.finalists import MeanOverSeeds
from autoprune.study.metric import ACCURACY, MetricSpec

_SPACE = "\N{NO-BREAK SPACE}"


def value_text(value: float, metric: MetricSpec, digits: int = 1) -> str:
    """`89.1 %` (with a no-break space), of other units four digits: `28.41 dB`, `0.0731`."""
    if metric.unit == "%":
        return f"{100 * value:.{digits}f}{_SPACE}%"
    return metric.shown(value).replace(" ", _SPACE)


def difference_text(difference: float, metric: MetricSpec) -> str:
    """`+2.6 points`, `+0.41 dB`; negative ones have a true minus sign."""
    number, _, unit = metric.shown_difference(difference).partition(" ")
    number = number.replace("-", "\N{MINUS SIGN}")
    number = f"±{number[1:]}" if float(number[1:]) == 0 else number
    return f"{number}{_SPACE}{unit}" if unit else number


def over_seeds(found: MeanOverSeeds, metric: MetricSpec, digits: int = 1) -> str:
    """Mean and standard deviation: `89.1 % ± 0.4`."""
    if found.std is None:
        return value_text(found.mean, metric, digits)
    std = f"{100 * found.std:.{digits}f}" if metric.unit == "%" else f"{found.std:.2g}"
    return f"{value_text(found.mean, metric, digits)} ± {std}"


def heading(metric: MetricSpec) -> str:
    """Its name at the beginning of a heading: `Accuracy`; a name with capitals of its own stays as it is."""
    return metric.name[0].upper() + metric.name[1:] if metric.name.islower() else metric.name


def plural(metric: MetricSpec) -> str:
    """Several of its values, in a sentence."""
    return "accuracies" if metric.name == ACCURACY.name else f"values of {metric.name}"


def one_value(metric: MetricSpec) -> str:
    """One of its values, in a sentence."""
    return "an accuracy" if metric.name == ACCURACY.name else f"a value of {metric.name}"


def axis_title(metric: MetricSpec, before: str) -> str:
    """Name, unit, and which end is good where that is the lower one: `Validation rmse (cm, smaller is better)`."""
    told = [metric.unit] if metric.unit not in ("", "%") else []
    told += ["smaller is better"] if metric.direction == "minimize" else []
    return f"{before} {metric.name}" + (f" ({', '.join(told)})" if told else "")


def tick_format(metric: MetricSpec) -> str:
    """Of an axis, in the words of d3-format."""
    return ".1~%" if metric.unit == "%" else ".4~g"


def reference_text(metric: MetricSpec) -> str:
    """What hypervolumes are measured against: `accuracy 0`, or what has the height 0, and then what a half is."""
    if metric.worst is not None and metric.bounded:
        return f"{metric.name} {metric.worst:g}"
    end = "without end" if metric.worst is None else f"{metric.worst:g}"
    return f"{metric.name} {end} (that of the half height is {metric.shown(metric.at_height(0.5))})"

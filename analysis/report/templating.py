"""The templates that the report is written with."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates() -> Environment:
    """The templates of this package; what is put into them is escaped, and a missing name is an error."""
    return Environment(
        loader=PackageLoader("autoprune.analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

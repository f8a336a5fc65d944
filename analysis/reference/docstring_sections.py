"""An extension of Griffe, which reads docstrings for the API's pages: our `Fields:` are its `Attributes:`."""

from __future__ import annotations

import re
from typing import Any

import griffe


class FieldsAreAttributes(griffe.Extension):
    """Renames the section before docstrings are parsed."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Rename it in one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Fields:$", "Attributes:", obj.docstring.value, flags=re.MULTILINE)

"""How Ultralytics is imported: kept from the network, from installing packages and from the user's home directory."""

from __future__ import annotations

import importlib.util
import os

from autoprune.errors import InputError
from autoprune.tasks.user_code import data_folder

#: What it reads when it is first imported. Whoever sets a variable, or imports it before, has the last word.
ENVIRONMENT = {
    "YOLO_OFFLINE": "true",  # no look-ups of hosts, no usage events, no reports of crashes
    "YOLO_AUTOINSTALL": "false",  # no pip at run time
    "YOLO_VERBOSE": "false",  # no tables of layers for every network that is built
    "ULTRALYTICS_SAFE_LOAD": "true",  # checkpoints are unpickled by a list of known classes: they run no code
}


def require_ultralytics(where: str) -> None:
    """Raise `InputError` unless Ultralytics is installed; to be called before anything is imported from it."""
    if importlib.util.find_spec("ultralytics") is None:
        raise InputError("ultralytics not installed; run: pip install 'autoprune[ultralytics]'", where=where)
    # it writes a settings file wherever it is imported; in place of ~/.config that is where we write anyway
    for name, value in {**ENVIRONMENT, "YOLO_CONFIG_DIR": str(data_folder())}.items():
        os.environ.setdefault(name, value)

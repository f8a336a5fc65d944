"""How Ray and Tune are set up for many short trials: environment variables that they read once, and numbers."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

# Ray and Tune read these when they are imported or started.
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files: half of Tune's time per trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours stops the same way and says how to resume
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # the study folder is the only truth: nothing is ever restored from Tune's
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a space file mean the same in every process
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints every crash, whatever the verbosity
    "RAY_USAGE_STATS_ENABLED": "0",
}

os.environ.update({key: value for key, value in _ENVIRONMENT.items() if key not in os.environ})


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations inside Ray are not the user's to mend
    import ray.tune  # noqa: F401 - here first: every later import finds Ray set up, and is silent


#: A worker that waits this long for the other workers starts without them.
BARRIER_SECONDS = 60.0

#: A trial segment whose worker process dies is tried this many times in all.
ATTEMPTS = 3

#: One that is lost with its node is nobody's fault; but it may be what takes nodes down.
LOST_NODES = 10

#: What is larger than its store, such as data, Ray maps from files on the disk; its own default is 30 % of the memory.
OBJECT_STORE_BYTES = 128 * 2**20

#: Exit codes of a worker process that ends itself: as its trial takes too long, as one of its peers has died, as it has
#: been given notice, and as its GPU fails.
TIMED_OUT, PEER_DIED, TAKEN_AWAY, GPU_FAILED = 42, 43, 44, 45

#: What a worker reports of a segment that is to be handed out again: whether it has left something to go on from.
PUT_BACK = "put_back"

#: Loading the task and tracing the model take no longer than a trial may, or than so many seconds if that is more.
OPENING_SECONDS = 1800.0

#: A worker that was given notice, and has reported, ends itself after so many seconds.
NOTICE_SECONDS = 1.0

#: A worker whose GPU cannot be used holds it so long, in seconds, before it dies: the next one would be placed there.
UNUSABLE_GPU_SECONDS = 30.0

#: A trial that hangs and lets no other thread run is ended so long after those that do.
HUNG_GRACE_SECONDS = 10.0

#: Processes of a trial end a segment within so many seconds of each other, or do not talk any more.
PEER_GRACE_SECONDS = 10.0

#: Arguments of `ray.init` that keep it silent.
QUIET_INIT: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}

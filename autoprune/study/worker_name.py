"""What logs call the process that runs a trial: where it is, and on which GPUs. `node3:4711`, `node3:4711:gpu0+1`."""

from __future__ import annotations

from dataclasses import dataclass

_GPUS = "gpu"


@dataclass(frozen=True, kw_only=True)
class WorkerName:
    """The process that ran a trial, or its first one.

    Fields:
        node: its machine's name.
        process: its number there.
        gpus: as the machine counts them, of this process; none = it runs on the CPU.
    """

    node: str
    process: int
    gpus: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [self.node, str(self.process)]
        return ":".join([*parts, _GPUS + "+".join(self.gpus)] if self.gpus else parts)

    @classmethod
    def parse(cls, text: str) -> WorkerName | None:
        """The inverse of `str`; None of a text that names no process, such as that of a trial no worker took up."""
        node, _, rest = text.partition(":")
        process, _, gpus = rest.partition(":")
        if not node or not process.isdecimal():
            return None
        named = gpus.removeprefix(_GPUS).split("+") if gpus.startswith(_GPUS) else ()
        return cls(node=node, process=int(process), gpus=tuple(named))

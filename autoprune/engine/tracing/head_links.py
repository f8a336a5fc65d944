"""Attention heads that take their width from the stream: which labels to tie so that both can be cut together.

Attention code often takes the width of a head from that of the stream: head = stream // heads. Then neither can be cut
alone. Where a stream of h d channels goes into a layer whose outputs are split into heads of d, the stream is taken as
h heads as well, and offset i of every head becomes one unit with them. This makes units coarse, so the probe does it
only where the groups in question fail alone and do not fail linked.
"""

from __future__ import annotations

import numpy as np

from autoprune.engine.graph import Ints
from autoprune.engine.labels.evidence import Evidence


def head_links(evidence: Evidence) -> list[Ints]:
    """Pairs of labels, shape (2, n): stream and heads of every layer whose outputs are split into heads."""
    makers = [op for op in evidence.ops if op.out_dims and op.inputs is not None]
    source = {int(op.out_dims[0].flat[0]): op.inputs for op in reversed(makers)}  # the first to put these labels out
    links = []
    for _, rows in evidence.splits:
        stream, width = source.get(int(rows.flat[0])), rows.shape[-1]
        if stream is not None and stream.size % width == 0 and stream.all() and rows.all():
            heads = stream.reshape(-1, width)
            links.append(np.stack([heads.ravel(), np.broadcast_to(rows[0], heads.shape).ravel()]))
    return links

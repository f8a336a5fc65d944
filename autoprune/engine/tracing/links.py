"""Labels that the model's code takes as one width although nothing ties them: which to tie so that they go together.

Attention code often takes the width of a head from that of the stream: head = stream // heads. Then neither can be cut
alone. Where a stream of h d channels goes into a layer whose outputs are split into heads of d, the stream is taken as
h heads as well, and offset i of every head becomes one unit with them. And one attribute may count the filters of
several layers, `inter_channels` those of all three of a non-local block: unit i of each goes with those of the others.
Both make units coarse, so it is done only where the groups in question fail alone and do not fail linked.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from autoprune.engine.graph import Ints
from autoprune.engine.labels.evidence import Evidence
from autoprune.engine.tracing.size_attributes import Attributes, lengths_by_attribute

#: Pairs of labels to tie, shape (2, n).
Link = Ints


def head_links(evidence: Evidence) -> list[Link]:
    """Stream and heads of every layer whose outputs are split into heads."""
    makers = [op for op in evidence.ops if op.out_dims and op.inputs is not None]
    source = {int(op.out_dims[0].flat[0]): op.inputs for op in reversed(makers)}  # the first to put these labels out
    links = []
    for _, rows in evidence.splits:
        stream, width = source.get(int(rows.flat[0])), rows.shape[-1]
        if stream is not None and stream.size % width == 0 and stream.all() and rows.all():
            heads = stream.reshape(-1, width)
            links.append(np.stack([heads.ravel(), np.broadcast_to(rows[0], heads.shape).ravel()]))
    return links


def attribute_links(attributes: Attributes, evidence: Evidence, unit_of_label: Ints) -> Mapping[tuple[str, str], Link]:
    """(module, attribute) -> what would make it count one width, of the attributes that count different ones so far."""
    links: dict[tuple[str, str], Link] = {}
    for key, candidates in lengths_by_attribute(attributes, evidence).items():
        first, *others = (labels.ravel() for labels in candidates)
        owned = [labels for labels in others if (unit_of_label[labels] >= 0).any()]
        pairs = [np.stack([first, labels]) for labels in owned]
        pairs = [pair[:, (pair != 0).all(axis=0)] for pair in pairs]
        joined = np.concatenate([np.zeros((2, 0), np.int64), *pairs], axis=1)
        if (unit_of_label[joined[0]] != unit_of_label[joined[1]]).any():
            links[key] = joined
    return links

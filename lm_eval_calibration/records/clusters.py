"""Which docs were drawn together: by a field of the doc, kept as an id without its text.

Docs of equal values are one cluster, also where they are docs of several tasks: of parallel translations, say.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntIds = NDArray[np.uint64]

DOC = "doc."
"""Begins the name of a field of the docs, as in ``doc.passage_id`` or ``doc.meta.site``."""


def field_of(doc: Any, field: str) -> Any:
    """Return the value of a field of a doc.

    Args:
        doc: the dataset's row.
        field: its name after ``doc.``, as in ``doc.subject`` or ``doc.meta.site``.

    Raises:
        ValueError: the doc has no such field; the message says which fields it has.
    """
    value = doc
    for name in field.removeprefix(DOC).split("."):
        if not isinstance(value, Mapping) or name not in value:
            fields = ", ".join(map(str, value)) if isinstance(value, Mapping) else "no fields"
            raise ValueError(f"has no {name!r}, it has {fields}")
        value = value[name]
    return value


def cluster_of(doc: Any, field: str) -> str:
    """Return the id of a doc's cluster: 16 digits of a hash, which tell equal values and not what they are.

    Raises:
        ValueError: the doc has no such field, or nothing in it.
    """
    value = field_of(doc, field)
    if value in (None, "") or (isinstance(value, float) and math.isnan(value)):
        raise ValueError(f"has {value!r} as {field}: it says of no doc what it belongs to")
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def as_numbers(ids: Sequence[str | None]) -> IntIds:
    """Return ids as numbers, 0 for a doc of no cluster."""
    return np.array([0 if one is None else int(one, 16) for one in ids], dtype=np.uint64)


def clusters_of(ids: IntIds) -> IntIds | None:
    """Return what metrics take as ``cluster``, a doc of no cluster alone in its own; None where no doc has one."""
    if not ids.any():
        return None
    alone = np.flatnonzero(ids == 0)
    filled = ids.copy()
    filled[alone] = np.arange(1, len(alone) + 1, dtype=np.uint64)
    return filled


def drawn_as(doc_hashes: NDArray[np.str_], ids: IntIds | None) -> NDArray[np.str_]:
    """Return what was drawn, [N]: a doc's cluster, or the doc itself.

    A doc that several tasks have is drawn once: where one of them knows its cluster, all count it there, and clusters
    that share a doc are one.
    """
    if ids is None:
        return doc_hashes
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    docs, doc = np.unique(doc_hashes, return_inverse=True)
    clusters, cluster = np.unique(ids[ids != 0], return_inverse=True)
    edges = doc[ids != 0], len(docs) + cluster
    n = len(docs) + len(clusters)
    _, part = connected_components(coo_array((np.ones(len(cluster)), edges), (n, n)), directed=False)
    name = np.zeros(n, dtype=np.uint64)
    name[part[len(docs) :][::-1]] = clusters[::-1]  # the smallest cluster of each part is written last
    found = name[part[doc]]
    return np.where(found == 0, doc_hashes, found.astype(np.str_))


def n_clusters(ids: IntIds) -> int | None:
    """Return the number of clusters, docs of none counted as one each; None where no doc has one."""
    found = clusters_of(ids)
    return None if found is None else len(np.unique(found))

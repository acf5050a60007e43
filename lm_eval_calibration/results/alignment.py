"""The docs of one task in two runs, aligned by the hash of the doc."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lm_eval_calibration.records import Record, n_clusters, ordered
from lm_eval_calibration.records.clusters import as_numbers
from lm_eval_calibration.results.certificates import Certificate


@dataclass(frozen=True)
class Alignment:
    """Docs of two runs to compare.

    Attributes:
        a: records of one run; where paired, ``a[i]`` and ``b[i]`` are of the same doc.
        b: records of the other; where paired, with the doc ids that a has.
        paired: whether they are pairs; else the two are different docs, taken as independent.
        left_out_a: number of docs of a that are not in ``a``: b hasn't got them, their gold label is broken, or
            they have no confidence.
        left_out_b: the same of b.
    """

    a: tuple[Record, ...]
    b: tuple[Record, ...]
    paired: bool
    left_out_a: int
    left_out_b: int

    @property
    def other_prompts(self) -> int:
        """Number of pairs with different prompts; 0 where not paired."""
        return self._unequal("prompt_hash")

    @property
    def other_golds(self) -> int:
        """Number of pairs whose gold choice is not the same; 0 where not paired."""
        return self._unequal("gold")

    @property
    def n_clusters(self) -> int | None:
        """Of how many clusters the docs of a are; None where each was drawn by itself, as far as is known."""
        return n_clusters(as_numbers([record.cluster for record in self.a]))

    @property
    def certificates(self) -> tuple[list[Certificate], list[Certificate]]:
        """How the numbers of each doc were obtained, of a and of b."""
        return [record.certificate for record in self.a], [record.certificate for record in self.b]

    def _unequal(self, name: str) -> int:
        pairs = zip(self.a, self.b, strict=True) if self.paired else ()
        return sum(getattr(a, name, None) != getattr(b, name, None) for a, b in pairs)


def align_tasks(a: Mapping[str, Sequence[Record]], b: Mapping[str, Sequence[Record]]) -> dict[str, Alignment]:
    """Align the docs of each task that both runs have answers to.

    Args:
        a: records of one run, by task.
        b: records of the other.

    Raises:
        ValueError: no task in common, none whose docs have outcome and confidence in both runs, or as :func:`align`.
    """
    both = sorted(a.keys() & b.keys())
    if not both:
        raise ValueError(f"the runs have no task in common: {_listed(a)} in a, {_listed(b)} in b")
    aligned = {task: align(a[task], b[task]) for task in both}
    found = {task: alignment for task, alignment in aligned.items() if alignment.a and alignment.b}
    if not found:
        lacking = "b" if aligned[both[0]].a else "a"
        raise ValueError(f"{both[0]}: no doc of run {lacking} has a sound gold label and a confidence")
    return found


def joined(aligned: Iterable[Alignment]) -> Alignment:
    """Return the docs of several tasks together, paired where every task's are."""
    parts = list(aligned)
    return Alignment(
        a=tuple(record for part in parts for record in part.a),
        b=tuple(record for part in parts for record in part.b),
        paired=all(part.paired for part in parts),
        left_out_a=sum(part.left_out_a for part in parts),
        left_out_b=sum(part.left_out_b for part in parts),
    )


def by_task(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return records by their task."""
    tasks: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        tasks[record.task].append(record)
    return dict(tasks)


def align(a: Iterable[Record], b: Iterable[Record]) -> Alignment:
    """Pair the docs of one task by hash.

    Docs of the same hash (a data set may hold a doc twice) are paired in the order of their ids, as many as both
    runs have. If at least half of the smaller run's docs find their pair, the pairs are compared and the other docs
    left out; else all docs of both are, unpaired.

    Args:
        a: records of one run, of one task.
        b: records of the other, of the same task.

    Raises:
        ValueError: the same doc twice in one run, or records of different kinds.
    """
    one, other = _checked(a, "a"), _checked(b, "b")
    kinds = {record.kind for record in (*one, *other)}
    if len(kinds) > 1:
        raise ValueError(f"{one[0].task}: records of different kinds ({', '.join(sorted(kinds))}) can't be compared")
    same = pair_by_hash([record.doc_hash for record in one], [record.doc_hash for record in other])
    pairs = [(one[i], other[j]) for i, j in same if _is_sound(one[i]) and _is_sound(other[j])]
    paired = bool(pairs) and 2 * len(pairs) >= min(len(one), len(other))
    in_order_of_a = (y if x.doc_id == y.doc_id else replace(y, doc_id=x.doc_id) for x, y in pairs)
    kept_a = [x for x, _ in pairs] if paired else list(filter(_is_sound, one))
    kept_b = list(in_order_of_a if paired else filter(_is_sound, other))
    return Alignment(tuple(kept_a), tuple(kept_b), paired, len(one) - len(kept_a), len(other) - len(kept_b))


def pair_by_hash(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """Return where the docs that both have stand in each, by their hashes; of equal docs as many as both have."""
    waiting: dict[str, list[int]] = defaultdict(list)
    for j in reversed(range(len(b))):
        waiting[b[j]].append(j)
    return [(i, waiting[name].pop()) for i, name in enumerate(a) if waiting.get(name)]


def _checked(records: Iterable[Record], run: str) -> list[Record]:
    """The records by doc id; ValueError where one doc stands there twice."""
    docs = ordered(records)
    seen = set()
    for record in docs:
        key = record.doc_id, record.doc_hash
        if record.doc_id is not None and key in seen:
            raise ValueError(f"{record.task} doc {record.doc_id} is in run {run} twice: give the records of one run")
        seen.add(key)
    return docs


def _listed(tasks: Iterable[str]) -> str:
    return ", ".join(sorted(tasks)) or "none"


def _is_sound(record: Record) -> bool:
    return record.correct is not None and record.confidence is not None

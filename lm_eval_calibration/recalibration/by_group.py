"""One map for each group of docs (or for all), which remembers the docs it was fitted on and won't judge them."""

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lm_eval_calibration.recalibration.choices import assemble
from lm_eval_calibration.recalibration.confidence_maps import Beta, HistogramBinning, Isotonic, Platt
from lm_eval_calibration.recalibration.docs import Docs, Forecasts
from lm_eval_calibration.recalibration.multicalibrated import Multicalibrated
from lm_eval_calibration.recalibration.recalibrator import FORMAT, RecalibrationWarning, Recalibrator, warn
from lm_eval_calibration.recalibration.temperature import Temperature
from lm_eval_calibration.recalibration.token_temperature import TokenTemperature

METHODS: dict[str, type[Recalibrator]] = {
    method.method: method for method in (Temperature, Platt, Isotonic, Beta, HistogramBinning, Multicalibrated)
}
"""The methods by name that map a doc's choices or confidence; a token temperature maps neither."""

MIN_FIT_DOCS = 20
"""Fewer docs than this are not fitted on."""


class FittedOnTheseDocsError(ValueError):
    """A map was to be tested on docs that it was fitted on."""


@dataclass(frozen=True)
class MapByGroup:
    """A recalibration map for each group.

    Attributes:
        method: name of the method.
        maps: group to map; docs without groups are in the group "".
        fitted_on: digests of the hashes of the docs it was fitted on.
    """

    method: str
    maps: Mapping[str, Recalibrator]
    fitted_on: frozenset[str]

    @classmethod
    def fit(cls, method: str, docs: Docs, groups: Iterable[str] | None = None) -> Self:
        """Fit one map for each group of the docs.

        A group with fewer than 20 docs to fit on is left as it is, with a RecalibrationWarning.

        Args:
            method: a name of :data:`METHODS`.
            docs: to fit on.
            groups: the groups to have maps for; those of the docs by default.

        Raises:
            ValueError: an unknown method.
        """
        if method not in METHODS:
            raise ValueError(f"no method {method!r}; there are {', '.join(METHODS)}")
        names = np.unique(docs.groups) if groups is None else sorted(set(groups))
        maps = {
            str(name): _fit(METHODS[method], name, docs.take(np.flatnonzero(docs.groups == name))) for name in names
        }
        return cls(method, maps, frozenset(map(digest, docs.doc_hashes)))

    def recalibrate(self, docs: Docs) -> Forecasts:
        """Return the recalibrated forecasts of other docs than it was fitted on.

        Raises:
            FittedOnTheseDocsError: it was fitted on some of them.
        """
        self.check_others(docs.doc_hashes)
        return self.forecasts(docs)

    def check_others(self, doc_hashes: NDArray[np.str_]) -> None:
        """Raise FittedOnTheseDocsError if it was fitted on some of these docs."""
        seen = sum(digest(doc_hash) in self.fitted_on for doc_hash in doc_hashes)
        if seen:
            raise FittedOnTheseDocsError(
                f"the map was fitted on {seen} of these {len(doc_hashes)} docs; it can be tested on other docs only"
            )

    def forecasts(self, docs: Docs) -> Forecasts:
        """Return the recalibrated forecasts of any docs: not for judging.

        Raises:
            ValueError: a group of the docs has no map.
        """
        missing = sorted(set(docs.groups.tolist()) - set(self.maps))
        if missing:
            raise ValueError(f"the map has no group {missing[0]!r}; it has {', '.join(map(repr, self.maps))}")
        takes = METHODS[self.method].takes
        rows = {name: np.flatnonzero(docs.groups == name) for name in np.unique(docs.groups).tolist()}
        parts = [
            (which, self.maps[name].predict_proba(docs.take(which).fit_arguments(takes)[0]))
            for name, which in rows.items()
        ]
        together = assemble(parts, len(docs))
        return docs.with_probs(together) if takes == "choices" else docs.with_confidence(together)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        maps = {name: group_map.to_dict() for name, group_map in self.maps.items()}
        return {"format": FORMAT, "method": self.method, "maps": maps, "fitted_on": sorted(self.fitted_on)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote; raise ValueError for another format version or a method we don't know."""
        if data.get("format") != FORMAT:
            raise ValueError(f"format version {data.get('format')!r} of the map is not {FORMAT}")
        method, known = data.get("method"), METHODS | {TokenTemperature.method: TokenTemperature}
        if method not in known:
            raise ValueError(f"no method {method!r}; there are {', '.join(known)}")
        try:
            maps = {name: known[method].from_dict(group_map) for name, group_map in data["maps"].items()}
            return cls(method, maps, frozenset(data["fitted_on"]))
        except (KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"not a recalibration map: {error!r}") from error


def digest(doc_hash: str) -> str:
    """Return what a map keeps of a doc: enough to know it again, no more."""
    return hashlib.sha256(str(doc_hash).encode()).hexdigest()[:16]


def _fit(method: type[Recalibrator], name: str, docs: Docs) -> Recalibrator:
    """Fit a group's map; its warnings begin with the group's name."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if len(docs) < MIN_FIT_DOCS:
            warn(f"left as it is: fewer than {MIN_FIT_DOCS} docs to fit on")
            fitted = method.identity()
        else:
            fitted = method().fit(*docs.fit_arguments(method.takes))
    for warning in caught:
        if issubclass(warning.category, RecalibrationWarning):
            warn(f"{name}: {warning.message}" if name else str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return fitted

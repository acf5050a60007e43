"""Colours of series: told apart by everybody, and standing out from the paper."""

from itertools import combinations

import numpy as np
import pytest

from lm_eval_calibration.plots.style import COLOURS, DARK_COLOURS, DASHES, MARKERS

# Machado, Oliveira & Fernandes 2009, severity 1.0, for linear RGB.
VISIONS = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])
APART = 20.0
"""CIE 1976 distance; 2.3 is just noticeable side by side, small marks and thin lines need much more."""


def linear(colour: str) -> np.ndarray:
    shares = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    ratio = TO_XYZ @ np.clip(rgb, 0, 1) / WHITE
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    light = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (light[1] + 0.05) / (light[0] + 0.05)


def test_the_distances_are_those_of_the_cie() -> None:
    assert lab(linear("#ffffff")) == pytest.approx([100, 0, 0], abs=0.02)
    assert lab(linear("#ff0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("palette", [COLOURS, DARK_COLOURS])
def test_every_two_colours_are_told_apart(palette: tuple[str, ...], vision: str) -> None:
    seen = {colour: lab(np.array(VISIONS[vision]) @ linear(colour)) for colour in palette}
    near = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in combinations(palette, 2)}
    assert len(seen) == len(palette)
    assert {pair: distance for pair, distance in near.items() if distance < APART} == {}


@pytest.mark.parametrize(("palette", "paper"), [(COLOURS, "#ffffff"), (DARK_COLOURS, "#16181c")])
def test_every_colour_stands_out_from_its_paper(palette: tuple[str, ...], paper: str) -> None:
    assert {colour for colour in palette if contrast(colour, paper) < 3} == set()


def test_series_differ_in_more_than_colour() -> None:
    assert len(set(DASHES)) == len(set(MARKERS)) == len(COLOURS) == len(DARK_COLOURS)

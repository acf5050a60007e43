"""A calibration curve in the manner of scikit-learn's displays: made of a run, drawn on axes, several on one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lm_eval_calibration.plots import Reliability, prepare_reliability
from lm_eval_calibration.plots.drawing import plot_calibration_curve
from lm_eval_calibration.results.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


class CalibrationDisplay:
    """Accuracy against mean confidence of a run's docs, a point for each bin (needs the extra ``report``).

    As scikit-learn's class of the same name, which takes probabilities of a binary outcome: here the outcome is
    whether the answer is correct. ``CalibrationDisplay.from_run(b, ax=CalibrationDisplay.from_run(a).ax_)`` draws two
    runs on the same axes.

    Attributes:
        data: the bins.
        name: in the legend.
        ax_: matplotlib axes, once it is drawn.
        figure_: their figure.
    """

    ax_: "Axes"
    figure_: "Figure | SubFigure"

    def __init__(self, data: Reliability, *, name: str = "") -> None:
        self.data, self.name = data, name

    @classmethod
    def from_run(
        cls,
        run: Run,
        *,
        tasks: str | Sequence[str] | None = None,
        n_bins: int | None = None,
        name: str | None = None,
        ax: "Axes | None" = None,
    ) -> "CalibrationDisplay":
        """Draw the curve of a run.

        Args:
            run: the run.
            tasks: a task, a group, or several tasks; all of the run where not given.
            n_bins: bins of equal width; the run's where not given.
            name: in the legend; the model's where not given.
            ax: axes to draw on; new ones where not given.

        Raises:
            UserError: no such task; no axes are given and matplotlib is not installed.
            ValueError: docs without confidence, as of a corpus.
        """
        data = prepare_reliability(*run.arrays("top_label", tasks), n_bins=run.n_bins if n_bins is None else n_bins)
        return cls(data, name=run.model if name is None else name).plot(ax)

    def plot(self, ax: "Axes | None" = None) -> "CalibrationDisplay":
        """Draw the curve on axes, or on new ones; return the display."""
        self.ax_ = plot_calibration_curve(self.data, ax, name=self.name)
        self.figure_ = self.ax_.figure
        return self

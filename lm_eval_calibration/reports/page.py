"""A self-contained HTML page: no outside reference, readable in print, on a phone, in light and dark."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.plots.style import (
    ACCURACY,
    COLOURS,
    CONFIDENCE,
    COVERAGE,
    DARK_COLOURS,
    DASHES,
    ECE,
    RISK,
    shortened,
)
from lm_eval_calibration.reports import names, numbers

FILTERS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(numbers.number, numbers.signed, numbers.interval, numbers.bounds, numbers.p_value, numbers.p_equals),
        *(numbers.percent, numbers.count, numbers.short_count, numbers.short_time),
        *(names.shown, names.task_name, names.short_task_name, shortened),
    )
}
"""What every template can write numbers and names with."""


def render_page(template: Path, *, filters: Mapping[str, Callable[..., Any]] | None = None, **data: Any) -> str:
    """Return the page that a template makes of the data; text is escaped, only ``markupsafe.Markup`` is not.

    The template extends ``page.html``, which gives the head, the colours and the styles.

    Args:
        template: a file.
        filters: of the template's own, by name, beside :data:`FILTERS`.
        **data: what it names.

    Raises:
        UserError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise UserError("pages need jinja2: pip install 'lm-eval-calibration[report]'") from error

    loader = FileSystemLoader([template.parent, Path(__file__).parent])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update({**FILTERS, **(filters or {})})
    environment.globals.update(
        axes={"confidence": CONFIDENCE, "accuracy": ACCURACY, "coverage": COVERAGE, "risk": RISK, "error": ECE}
    )
    environment.globals.update(colours=COLOURS, dark_colours=DARK_COLOURS, dashes=DASHES)
    environment.tests["nan"] = math.isnan
    return environment.get_template(template.name).render(**data)

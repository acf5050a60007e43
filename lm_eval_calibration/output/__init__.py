"""What leaves as text, page or picture: escaped, written whole or not at all, readable in light and dark."""

from lm_eval_calibration.output.escaping import csv_cell, latex, markdown, xml_text
from lm_eval_calibration.output.files import write_whole
from lm_eval_calibration.output.page import render_page

__all__ = ["csv_cell", "latex", "markdown", "render_page", "write_whole", "xml_text"]

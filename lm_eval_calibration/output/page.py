"""A self-contained HTML page: no outside reference, readable in print, on a phone, in light and dark."""

from pathlib import Path
from typing import Any


def render_page(template: Path, **data: Any) -> str:
    """Return the page that a template makes of the data; text is escaped, only ``markupsafe.Markup`` is not.

    The template extends ``page.html``, which gives the head, the colours and the styles.

    Args:
        template: a file.
        **data: what it names.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([template.parent, Path(__file__).parent])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template.name).render(**data)

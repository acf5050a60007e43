"""``lm-eval-calibration view``: the reports of all runs in a folder, in a browser."""

from typing import Annotated

import typer

from lm_eval_calibration.cli.options import Folders, Latest, ModelPattern, TaskPattern, selection


def view(
    folders: Folders,
    *,
    latest: Latest = False,
    model: ModelPattern = None,
    task: TaskPattern = None,
    port: Annotated[int, typer.Option(help="Of this machine; 0 for any that is free.")] = 0,
    redact: Annotated[bool, typer.Option("--redact", help="Without texts of docs, prompts and answers.")] = False,
) -> None:
    """Show the reports of all runs in a folder in a browser, on this machine only, and follow what is added.

    A report is made when it is first opened. Ends with Ctrl-C.

    Example: `lm-eval-calibration view lm_eval_results`
    """
    from lm_eval_calibration.reports.view.pages import Pages
    from lm_eval_calibration.reports.view.server import make_server

    server, address = make_server(Pages(folders, selection(latest, model, task), redact=redact), port)
    typer.echo(f"{address}\nOnly this machine can open it. Ctrl-C ends it.")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()

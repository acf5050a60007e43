"""What the harness makes of a command's arguments, before it loads anything."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

from lm_eval._cli import HarnessCLI
from lm_eval.config.evaluate_config import EvaluatorConfig

from lm_eval_calibration.errors import UserError


@contextmanager
def as_arguments(arguments: Sequence[str]) -> Iterator[None]:
    """Let ``lm_eval run`` find these arguments."""
    argv = sys.argv
    sys.argv = ["lm_eval", "run", *arguments]
    try:
        yield
    finally:
        sys.argv = argv


def parsed(arguments: Sequence[str]) -> Any:
    """Return the harness's ``EvaluatorConfig`` of arguments, in which a ``--config`` file has been taken up.

    Raises:
        UserError: what the harness says of a bad value or file.
        SystemExit: as its parser does, after help or an error.
    """
    with as_arguments(arguments):
        namespace = HarnessCLI().parse_args()
    level = logging.root.manager.disable
    try:
        logging.disable()
        with redirect_stdout(StringIO()):  # it shows all of a --config file, and will again as it runs
            return EvaluatorConfig.from_cli(namespace)
    except (ValueError, TypeError, OSError) as error:
        raise UserError(" ".join(str(error).split())) from error
    finally:
        logging.disable(level)

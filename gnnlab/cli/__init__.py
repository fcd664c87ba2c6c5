"""The `gnnlab` command.

Flags are made from the option dataclasses of the task that is asked for, so a new task has its
commands without a line here. Results go to stdout (only JSON with --json), everything else to
stderr. Exit codes: 0 good, 1 the run failed, 2 wrong usage or wrong input.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import cyclopts
from cyclopts import App

from gnnlab.cli import verbs
from gnnlab.cli.bench import bench_app
from gnnlab.cli.kernels import kernels_app
from gnnlab.cli.models import predict_command, task_app, train_app
from gnnlab.cli.output import say
from gnnlab.errors import GnnlabError, TrainingError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits with 0, 1 or 2."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    show_traceback = "--traceback" in tokens
    tokens = [t for t in tokens if t != "--traceback"]
    _spin_briefly()
    shown = warnings.showwarning
    warnings.showwarning = _show_warning
    try:
        sys.exit(_run(tokens))
    except (GnnlabError, cyclopts.CycloptsError, OSError) as error:
        if show_traceback:
            raise
        say(f"{_kind(error)}: {error}")
        wrong_path = (
            FileNotFoundError,
            FileExistsError,
            PermissionError,
            IsADirectoryError,
            NotADirectoryError,
        )
        failed = isinstance(error, TrainingError) or (
            isinstance(error, OSError) and not isinstance(error, (GnnlabError, *wrong_path))
        )
        sys.exit(1 if failed else 2)
    except KeyboardInterrupt as error:
        say(str(error) or "interrupted")
        sys.exit(1)
    except Exception as error:
        if show_traceback:
            raise
        say(
            f"{type(error).__name__}: {error}\nThis is not meant to happen. "
            "Run it again with --traceback and report what it prints."
        )
        sys.exit(1)
    finally:
        warnings.showwarning = shown


def _run(tokens: list[str]) -> int:
    app = _app(tokens)
    if not tokens:
        app.help_print([])
        return 0
    command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    code = command(*bound.args, **bound.kwargs)
    return code if isinstance(code, int) else 0


def _app(tokens: Sequence[str]) -> App:
    from gnnlab import __version__

    app = App(
        name="gnnlab",
        help="Graph neural networks for physics, recommendation and scheduling.",
        help_epilogue="Any command takes --traceback, which shows where an error comes from.",
        version=__version__,
        result_action="return_value",
    )
    app.command(train_app(tokens))
    for command in (verbs.list_, verbs.evaluate, verbs.info, verbs.doctor, verbs.data, verbs.demo):
        app.command(command, name=command.__name__.strip("_"))
    app.command(predict_command(tokens), name="predict")
    app.command(bench_app())
    app.command(kernels_app())
    task_app(app, tokens)
    return app


def _spin_briefly() -> None:
    """Makes idle worker threads sleep soon, before torch starts them.

    By default they spin for a millisecond after each parallel region, and where other programs want
    the same cores a training step then takes ten times as long or more. On an idle machine the
    short spin costs nothing (measured on two cores, LightGCN on generated data). A user's own
    setting wins.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def _kind(error: BaseException) -> str:
    return type(error).__name__ if isinstance(error, GnnlabError) else "gnnlab"


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"warning: {message}")

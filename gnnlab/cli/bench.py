"""`gnnlab bench`: measurements, and the page made from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from gnnlab.cli.output import Json, Quiet, print_json

__all__ = ["bench_app"]


def bench_app() -> App:
    """Returns `gnnlab bench` with its verbs."""
    app = App(name="bench", help="Measure, and write the benchmark pages.")

    @app.command
    def ops(
        *,
        quick: Annotated[bool, Parameter(negative="")] = False,
        out: Path | None = None,
        json: Json = False,
    ) -> int:
        """Time the operators against the peers that are installed, equality checked first.

        Parameters
        ----------
        quick
            Fewer repeats.
        out
            JSON file to write.
        """
        from gnnlab.bench import ops as bench

        return _bench_done(bench.run(quick), bench.table, out, json)

    @app.command
    def startup(*, out: Path | None = None, json: Json = False) -> int:
        """Time imports and --help in fresh processes.

        Parameters
        ----------
        out
            JSON file to write.
        """
        from gnnlab.bench import startup as bench

        return _bench_done(bench.run(), bench.table, out, json)

    @app.command
    def recommend(
        name: str, /, *, out: Path | None = None, json: Json = False, quiet: Quiet = False
    ) -> int:
        """Run one of the committed recommendation experiments.

        Parameters
        ----------
        name
            Experiment, for example lastfm, ml-1m or planted.
        out
            JSON file to write.
        """
        from gnnlab.bench import recommend as bench

        return _bench_done(
            bench.run(name, progress=False if quiet else None), bench.table, out, json
        )

    @app.command
    def docs(
        *, results: Path = Path("docs/results"), out: Path = Path("docs/benchmarks.md")
    ) -> int:
        """Write the benchmark page from the committed result files.

        Parameters
        ----------
        results
            Folder of JSON files.
        out
            Page to write.
        """
        from gnnlab.bench.page import write_page

        print(write_page(results, out))
        return 0

    return app


def _bench_done(
    result: dict[str, Any], table: Callable[[dict[str, Any]], str], out: Path | None, as_json: bool
) -> int:
    from gnnlab.experiment import write_json

    if out is not None:
        write_json(out, result)
    if as_json:
        print_json(result)
    else:
        print(table(result))
    return 0

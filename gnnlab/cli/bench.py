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
        compare: str = "all",
        threads: str = "1",
        graphs: str | None = None,
        widths: str | None = None,
        only: str = "",
        out: Path | None = None,
        plot: Path | None = None,
        json: Json = False,
        quiet: Quiet = False,
    ) -> int:
        """Time the operators against the peers that are installed, equality checked first.

        Parameters
        ----------
        quick
            Small graphs, F = 64 and fewer repeats: a minute or two.
        compare
            Peers, separated by commas: torch, numpy, scipy, pyg, scatter, dgl.
        threads
            1 (CPU time), a number, or all (wall time).
        graphs
            Graphs, separated by commas: a, b, c, d, star, empty, chain.
        widths
            Values of F, separated by commas, instead of 1,16,64,256.
        only
            Measure operators whose name contains this.
        out
            JSON file to write.
        plot
            SVG or PNG file to write; needs matplotlib.
        """
        from gnnlab.bench import ops as bench

        result = bench.run(
            quick,
            compare=compare,
            threads="all" if threads == "all" else _numbers("--threads", threads)[0],
            graphs=graphs.split(",") if graphs else None,
            widths=_numbers("--widths", widths) if widths else None,
            only=only,
            progress=not quiet,
        )
        if plot is not None:
            from gnnlab.bench.plot import draw

            draw(result, plot)
        _bench_done(result, bench.table, None, json)
        if out is not None:
            bench.write(out, result)
        return 1 if result["errors"] else 0

    @app.command
    def layers(
        *,
        quick: Annotated[bool, Parameter(negative="")] = False,
        compare: str = "all",
        graphs: str | None = None,
        only: str = "",
        out: Path | None = None,
        json: Json = False,
        quiet: Quiet = False,
    ) -> int:
        """Time a training step of every layer against PyG and DGL, equality checked first.

        Parameters
        ----------
        quick
            Small graphs and fewer repeats: a minute or two.
        compare
            Peers, separated by commas: pyg, scatter (PyG with torch_scatter), dgl.
        graphs
            Graphs, separated by commas: a, b, c, d, cora, pubmed.
        only
            Measure layers whose name contains this.
        out
            JSON file to write.
        """
        from gnnlab.bench import layers as bench, ops as writer

        result = bench.run(
            quick,
            compare=compare,
            graphs=graphs.split(",") if graphs else None,
            only=only,
            progress=not quiet,
        )
        _bench_done(result, bench.table, None, json)
        if out is not None:
            writer.write(out, result)
        return 1 if result["errors"] else 0

    @app.command
    def accuracy(
        *,
        quick: Annotated[bool, Parameter(negative="")] = False,
        only: str = "",
        seeds: int = 20,
        out: Path | None = None,
        json: Json = False,
        quiet: Quiet = False,
    ) -> int:
        """Train GCN, GAT and APPNP on Cora and GIN on MUTAG, beside the published levels.

        Parameters
        ----------
        quick
            Two runs of a tenth of the epochs.
        only
            One model: GCN, GAT, APPNP, GIN or "GIN, fixed".
        seeds
            Runs per model on Cora.
        out
            JSON file to write.
        """
        from gnnlab.bench import accuracy as bench

        result = bench.run(quick, only=only, seeds=seeds, progress=not quiet)
        return _bench_done(result, bench.table, out, json)

    @app.command
    def sampling(
        *,
        quick: Annotated[bool, Parameter(negative="")] = False,
        out: Path | None = None,
        json: Json = False,
        quiet: Quiet = False,
    ) -> int:
        """Time samplers, an epoch of GraphSAGE with its peak memory, and clusters.

        Parameters
        ----------
        quick
            A small graph and few batches: seconds.
        out
            JSON file to write.
        """
        from gnnlab.bench import sampling as bench

        return _bench_done(bench.run(quick, progress=not quiet), bench.table, out, json)

    @app.command
    def neighbors(
        *,
        quick: Annotated[bool, Parameter(negative="")] = False,
        out: Path | None = None,
        json: Json = False,
        quiet: Quiet = False,
    ) -> int:
        """Time radius and k-NN searches against scipy's k-d tree, equality checked first.

        Parameters
        ----------
        quick
            2,000 points only: seconds.
        out
            JSON file to write.
        """
        from gnnlab.bench import neighbors as bench

        return _bench_done(bench.run(quick, progress=not quiet), bench.table, out, json)

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
    def dispatch(
        part: str,
        /,
        *,
        quick: Annotated[bool, Parameter(negative="")] = False,
        runs: str = "",
        samples: str = "1,64",
        out: Path | None = None,
        json: Json = False,
        quiet: Quiet = False,
    ) -> int:
        """Measure dispatching, a part at a time.

        Parameters
        ----------
        part
            rules (against expected tables), exact (constraint programming), simulator (speed
            beside JSSEnv and job_shop_lib), shutdowns (rules while machines fail),
            learning (6x6 shops, minutes) or policies
            (trained ones, by --runs).
        quick
            Little of everything: seconds.
        runs
            Run folders of trained policies, separated by commas.
        samples
            Schedules per instance of which the best counts, separated by commas; 1 is greedy.
        out
            JSON file to write.
        """
        from gnnlab.bench.dispatch import table
        from gnnlab.tasks.dispatch import bench

        result = bench.run(
            part,
            quick,
            runs=[folder for folder in runs.split(",") if folder],
            samples=_numbers("--samples", samples),
            progress=not quiet,
        )
        return _bench_done(result, table, out, json)

    @app.command
    def imdb(
        data: Path | None = None,
        /,
        *,
        seeds: int = 5,
        only: str = "",
        out: Path | None = None,
        json: Json = False,
    ) -> int:
        """Train RGCN, HGT and Simple-HGN on a graph of films, directors and actors.

        Parameters
        ----------
        data
            Its npz file; by default imdb_hetero.npz under $GNNLAB_DATA.
        seeds
            Runs of each model.
        only
            Models, separated by commas: MLP, RGCN, HGT, Simple-HGN.
        out
            JSON file to write.
        """
        from gnnlab.bench import imdb as bench

        result = bench.run(data, seeds=seeds, only=only.split(",") if only else ())
        return _bench_done(result, bench.table, out, json)

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


def _numbers(flag: str, text: str) -> list[int]:
    """Returns positive numbers that commas separate."""
    from gnnlab.errors import ConfigError

    words = text.split(",")
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ConfigError(f'{flag} takes positive numbers, got "{text}".')
    return [int(word) for word in words]


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

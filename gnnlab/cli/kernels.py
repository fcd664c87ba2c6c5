"""`gnnlab kernels`: the compiled CUDA kernels."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from gnnlab.cli.output import Json, Quiet, print_json, say, short
from gnnlab.errors import ConfigError

__all__ = ["kernels_app"]


def kernels_app() -> App:
    """Returns `gnnlab kernels` with its verbs."""
    app = App(name="kernels", help="Compile CUDA kernels ahead of time, and see what is there.")

    @app.command
    def build(
        *,
        arch: str = "80,90,100",
        match: str = "",
        list_: Annotated[bool, Parameter("--list", negative="")] = False,
        json: Json = False,
        quiet: Quiet = False,
    ) -> int:
        """Compile kernels into the cache, for containers and machines without a network.

        Without this, each kernel is compiled when it is first used. Needs neither a GPU nor a
        driver. The cache is $GNNLAB_CACHE, by default ~/.cache/gnnlab.

        Parameters
        ----------
        arch
            Compute capabilities of the GPUs, separated by commas: 80 is A100, 90 H100, 100 B200.
        match
            Only kernels whose names contain all of these words, separated by commas.
        list_
            Print the names and compile nothing.
        """
        from gnnlab.ops import kernel_cache

        words = [word for word in match.split(",") if word]
        found = kernel_cache.names(words)
        if list_:
            if json:
                print_json({"kernels": found})
            else:
                print("\n".join(found))
            return 0
        numbers = _numbers(arch)
        total, fresh = len(found) * len(numbers), 0
        for number, (name, compiled) in enumerate(kernel_cache.build(numbers, words), 1):
            fresh += compiled
            if not quiet and compiled:
                say(f"[{number}/{total}] {name}")
        result = {"kernels": total, "compiled": fresh, "already_there": total - fresh}
        if json:
            print_json(result)
        else:
            print(f"{total} kernels: {fresh} compiled, {total - fresh} were there already")
        return 0

    @app.command
    def doctor(*, json: Json = False) -> int:
        """Tell what there is to compile and run kernels with, and what to install."""
        from gnnlab.ops.kernel_cache import examine

        found = examine()
        if json:
            print_json(found)
            return 0
        advice = found.pop("advice")
        for key, value in found.items():
            print(f"{key:<14} {short(value) or 'none'}")
        for line in advice:
            print(f"  - {line}")
        return 0

    return app


def _numbers(text: str) -> list[int]:
    words = [word.strip().removeprefix("sm_") for word in text.split(",")]
    if not words or not all(word.isdigit() for word in words):
        raise ConfigError(f'--arch must be numbers such as 80,90,100, got "{text}"')
    return [int(word) for word in words]

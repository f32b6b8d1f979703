"""The application: what all commands share, and the one place where errors become a sentence and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import cleandoc
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from napari_sparseseg.cli._console import warn
from napari_sparseseg.distributed.memory import keep_freed_memory
from napari_sparseseg.errors import InputWarning, SparseSegError

_FAILED = 1
_INTERRUPTED = 130  # what a shell expects after Ctrl-C: 128 + SIGINT
_TERMINATED = 143  # 128 + SIGTERM
_ISSUES = "https://github.com/napari-sparseseg/napari-sparseseg/issues"


class _QuietHelp:
    """Leave out types in help pages where name and text say enough: of flags, and of arguments that are files."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Options and arguments."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # of the command that this is mixed into
        for param in params:
            if getattr(param, "is_flag", False) or param.name in ("help", "install_completion", "show_completion"):
                param.metavar = ""
            elif param.param_type_name == "argument":
                param.display_type_rich = lambda ctx: ""  # noqa: ARG005 - called by that name
        return params


class _Command(_QuietHelp, TyperCommand):
    pass


class _Commands(_QuietHelp, TyperGroup):
    """Turns errors and Ctrl-C into one sentence and an exit code, for every command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Accept `--debug` anywhere: people add it to the end of the command that failed."""
        if "" in args:  # it would mean the current folder
            raise typer.BadParameter("an argument is empty; is a variable of the shell not set?")
        args = [_from_home(arg) for arg in args]
        end = args.index("--") if "--" in args else len(args)
        if "--debug" in args[:end]:
            args = ["--debug", *(a for a in args[:end] if a != "--debug"), *args[end:]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        debug = bool(ctx.params["debug"])
        try:
            with _plain_warnings(debug):
                return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(_INTERRUPTED) from interrupt
        except Exception as error:  # whatever a library raises, users get a sentence
            if debug or _is_for_typer(error):
                raise
            typer.echo(f"Error: {sentence(error)}", err=True)
            raise typer.Exit(_FAILED) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def add(function: Callable[..., None], *examples: str) -> None:
    """Make a command of a function; the examples end its help page."""
    # typer would keep the line breaks of the source, which fit no terminal
    paragraphs = (" ".join(text.split()) for text in cleandoc(function.__doc__ or "").split("\n\n"))
    end = "\n".join(["[bold]Examples[/bold]", *examples])
    app.command(cls=_Command, help="\n\n".join(paragraphs), epilog=end)(function)


def main() -> None:
    """Run the command line."""
    keep_freed_memory()
    _show_any_name()
    # job schedulers send this signal: half-written files are to be removed, as after Ctrl-C
    before = signal.signal(signal.SIGTERM, _end)
    try:
        app(prog_name="napari-sparseseg")
    finally:
        signal.signal(signal.SIGTERM, before)


def _show_any_name() -> None:
    """Let names of files that cannot be encoded be printed with escapes: they would end the work after it was done."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _end(*_: object) -> None:
    raise SystemExit(_TERMINATED)


def sentence(error: BaseException) -> str:
    """What went wrong, in one sentence for users."""
    if isinstance(error, SparseSegError):
        return str(error).replace("pass overwrite=True", "add --overwrite")  # the library speaks to Python
    if _is_out_of_memory(error):
        return (
            "memory ran out; close other programs, make --tile-voxels (predict) or --set training.cache_mb=256 (train) "
            "smaller, or take a part of the volume"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    lines = str(error).strip().splitlines()
    return (
        f"unexpected {type(error).__name__}{f' ({lines[0]:.200})' if lines else ''}; this is a bug: run with --debug "
        f"to see where, and please report it at {_ISSUES}"
    )


def _from_home(argument: str) -> str:
    """Replace `~` where the shell leaves it: bash after `--output=`, the prompt of Windows everywhere."""
    option, equals, value = argument.partition("=")
    if option.startswith("-") and equals:
        return f"{option}={_from_home(value)}"
    return str(Path(argument).expanduser()) if argument.startswith(("~/", f"~{os.sep}")) else argument


def _is_for_typer(error: Exception) -> bool:
    """Usage errors, the end of a pipe, and requests to exit."""
    # not by their base class: that is click's in older versions of typer, and typer's own in newer ones
    return isinstance(error, typer.Exit | typer.Abort | BrokenPipeError) or hasattr(error, "exit_code")


def _is_out_of_memory(error: BaseException) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from napari_sparseseg.engine.device import is_out_of_memory

    return is_out_of_memory(error)


@contextmanager
def _plain_warnings(debug: bool) -> Iterator[None]:
    """Print our own warnings as a sentence each; those of other libraries are for `--debug`."""
    if debug:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", InputWarning)
        warnings.showwarning = lambda message, *_, **__: warn(str(message))
        yield


def _print_version(wanted: bool) -> None:
    if wanted:
        from napari_sparseseg import __version__

        typer.echo(f"napari-sparseseg {__version__}")
        raise typer.Exit


@app.callback(
    epilog="[bold]Start with[/bold]  napari-sparseseg demo\n[bold]Then[/bold]        napari-sparseseg train --help"
)
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; for any command.")] = False,
) -> None:
    """Paint a few slices of a volume, get the dense segmentation."""

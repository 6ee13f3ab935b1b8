"""The entry point of ``rnx``: options before the command, and the one place where errors become text and exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.main

import joblet
from joblet.errors import JobletError
from rnx import exit_codes
from rnx.lazy_group import LazyGroup, OutputClosed

app = typer.Typer(
    cls=LazyGroup,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rnx {joblet.__version__}")
        raise typer.Exit


@app.callback(epilog="rnx COMMAND --help tells more about each command.")
def root(
    ctx: typer.Context,
    config: Annotated[str | None, typer.Option(metavar="FILE", help="The client configuration to use.")] = None,
    node: Annotated[str | None, typer.Option(metavar="NAME", help="The node of the configuration to talk to.")] = None,
    all_nodes: Annotated[bool, typer.Option("--all-nodes", help="Talk to all nodes of the configuration.")] = False,
    version: Annotated[  # noqa: ARG001 (its callback acts)
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the client's version.")
    ] = False,
) -> None:
    """Joblet's client: declare jobs, run commands, follow them."""
    ctx.obj = (config, node, all_nodes)


def run(arguments: Sequence[str]) -> int:
    """Run one command line. Returns its exit code; whatever went wrong has been told on standard error."""
    try:
        command: Any = typer.main.get_command(app)
        code = command.main(args=list(arguments), prog_name="rnx", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else exit_codes.OK
    except JobletError as error:
        return report(error)
    except (OutputClosed, BrokenPipeError):
        # What is still buffered has no reader: let the flush at exit find a file that takes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.OUTPUT_CLOSED
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    except Exception as error:
        return report_unexpected(error)


def report(error: JobletError) -> int:
    """Tell what went wrong, where, and what to do. Returns the exit code."""
    from rnx.output.terminal import printable

    if hasattr(error, "errors"):  # of manifests: one line each, in the form that editors understand
        text = str(error)
    else:
        text = f"rnx: {error.where}: {error.what}" if error.where else f"rnx: {error.what}"
    if error.todo:
        text += f"\n  {error.todo}"
    print("\n".join(printable(line) for line in text.splitlines()), file=sys.stderr)
    # Errors of the core are about files that people wrote: manifests, configuration.
    return int(getattr(error, "exit_code", exit_codes.INVALID))


def report_unexpected(error: Exception) -> int:
    """Usage errors show themselves; anything else is a fault of ours and is told without a traceback."""
    show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
    if callable(show) and isinstance(code, int):
        show()
        return code
    if os.environ.get("RNX_DEBUG"):
        raise error
    print(f"rnx: unexpected {type(error).__name__}: {error}", file=sys.stderr)
    print("  this is a fault of rnx; please report it, with what RNX_DEBUG=1 shows", file=sys.stderr)
    return exit_codes.FAILURE


def main() -> int:
    """The console script."""
    code = run(sys.argv[1:])
    if code == exit_codes.INTERRUPTED:
        # At once: a channel that was interrupted may wait for itself when the interpreter clears it away.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code

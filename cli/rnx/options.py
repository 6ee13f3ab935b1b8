"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from rnx.target import complete_ref


class Format(StrEnum):
    """How results are shown."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


FormatOption = Annotated[Format, typer.Option("--output", "-o", help="How to show it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for -o json.")]
SelectorOption = Annotated[
    str, typer.Option("--selector", "-l", metavar="LABELS", help="Only jobs with these labels: team=data,env!=dev.")
]
FilesOption = Annotated[
    list[str],
    typer.Option("--filename", "-f", metavar="PATH", help="A manifest, a directory of them, or - for standard input."),
]
RecursiveOption = Annotated[bool, typer.Option("--recursive", "-R", help="Look into the directories' directories too.")]
RefArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="A job's name, a run's id or the beginning of one; with .INDEX an array's index. Or workflow/NAME.",
        autocompletion=complete_ref,
    ),
]
ExecutorOption = Annotated[
    str | None,
    typer.Option("--executor", metavar="local|slurm", help="Where: else what the daemon's configuration says."),
]
IndexOption = Annotated[
    int | None, typer.Option("--index", min=0, metavar="INDEX", help="That index of an array; NAME.INDEX is the same.")
]


def chosen(output: Format, json: bool) -> Format:
    """The format, with --json as Joblet's commands have had it all along."""
    return Format.JSON if json else output

"""The root command: knows every command by name, loads the one that is called.

``rnx --help`` is written from the catalog alone, so it costs little more than Python and typer.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import typer
import typer.core
import typer.main

from rnx.catalog import ENTRIES, SECTIONS, Entry
from rnx.quick_coercion import quick


class OutputClosed(Exception):
    """Nobody reads our output any more (a broken pipe)."""


class QuickCommand(typer.core.TyperCommand):
    """A command whose plain values cost no pydantic."""

    def get_params(self, ctx: Any) -> list[Any]:
        return quick(super().get_params(ctx))


class LazyGroup(typer.core.TyperGroup):
    """A group whose commands are imported on use."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # The names are enough for suggestions and listings; get_command() loads.
        self.commands = dict.fromkeys(ENTRIES)  # type: ignore[assignment]

    def get_params(self, ctx: Any) -> list[Any]:
        return quick(super().get_params(ctx))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 (the base class says what is passed)
        entry = ENTRIES.get(cmd_name)
        return None if entry is None else load(entry)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 (likewise)
        for title, entries in SECTIONS:
            with formatter.section(title):
                formatter.write_dl([(entry.name, entry.summary) for entry in entries])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # typer would make it exit code 1
            raise OutputClosed from error


def load(entry: Entry) -> Any:
    """The command of that entry, built by typer from its function. Its docstring from ``Example:`` on is kept as it is."""
    if entry.commands:
        commands = {one[0]: load(Entry(*one)) for one in entry.commands}
        return typer.core.TyperGroup(
            name=entry.name,
            help=f"{entry.summary}.",
            epilog=f"\b\nExample:\n  rnx {entry.name} {next(iter(commands))} --help",
            commands=commands,
            no_args_is_help=True,
            rich_markup_mode=None,
        )
    module, _, name = entry.function.partition(":")
    function: Callable[..., object] = getattr(importlib.import_module(f"rnx.commands.{module}"), name)
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    settings = {"allow_interspersed_args": False} if entry.own_arguments else {}
    text, example, lines = inspect.cleandoc(function.__doc__ or "").partition("Example:")
    text = text.rstrip().removesuffix("\b").rstrip()  # the mark belongs to the example
    epilog = f"\b\n{example}{lines}"  # \b: click keeps these lines as they are
    app.command(
        entry.name,
        cls=QuickCommand,
        help=text,
        short_help=entry.summary,
        epilog=epilog,
        context_settings=settings,
    )(function)
    return typer.main.get_command(app)

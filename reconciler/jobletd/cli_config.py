"""``joblet config``: what the daemon's configuration says, whether it is right, and what may stand in it."""

from __future__ import annotations

import os
from typing import Annotated

import typer

app = typer.Typer(help="Check and show the daemon's configuration.", no_args_is_help=True, rich_markup_mode=None)
ConfigOption = Annotated[
    str | None, typer.Option(help="The configuration file. Default: JOBLET_CONFIG_PATH, then /opt/joblet/config.")
]


@app.command(epilog="Example: joblet config check --config /opt/joblet/config/joblet-config.yml")
def check(config: ConfigOption = None) -> None:
    """Say what is wrong with it, each with line and nearest key, and what has no effect. Exit status: 1 if it can't be used."""
    from joblet.config.server import read_server_config
    from jobletd.tls_context import credentials_of, server_context
    from jobletd.tracing.sending import check_tracing

    loaded = read_server_config(config, os.environ)
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    server_context(credentials_of(loaded.config.security))
    check_tracing(loaded.config.tracing)
    typer.echo(f"{loaded.source.path}: can be used" + (f", {len(loaded.warnings)} warning(s)" * bool(loaded.warnings)))


@app.command(epilog="Example: joblet config show --json")
def show(
    config: ConfigOption = None, json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show every value in force and where it came from: the file's line, a variable, or the default. Keys are not shown."""
    import json as json_module

    from joblet.config.effective import effective_values
    from joblet.config.server import read_server_config

    values = list(effective_values(read_server_config(config, os.environ)))
    if json:
        found = [{"key": one.path, "value": one.value, "from": one.origin} for one in values]
        typer.echo(json_module.dumps(found, indent=2))
        return
    section = ""
    for one in values:
        name, _, key = one.path.rpartition(".")
        if name and name != section:
            typer.echo(f"{name}:")
        section = name
        text = f"{'  ' if name else ''}{key}: {json_module.dumps(one.value)}"
        typer.echo(f"{text:<48}  # {one.origin}")


@app.command(epilog="Example: joblet config schema > joblet-config.schema.json")
def schema() -> None:
    """Print the JSON Schema of joblet-config.yml, for editors and linters."""
    from joblet.config.reference import schema_text

    typer.echo(schema_text(), nl=False)

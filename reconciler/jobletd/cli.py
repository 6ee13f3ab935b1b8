"""``joblet``: the command of the host's side. Parts are imported when their command runs."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import joblet
from jobletd import cli_certs, cli_config

app = typer.Typer(
    name="joblet",
    help="Turns this Linux machine into a declarative job host.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(cli_config.app, name="config")
app.add_typer(cli_certs.app, name="certs")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"joblet {joblet.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Turns this Linux machine into a declarative job host."""


@app.command(epilog="Example: joblet init --root /opt/joblet --address jobs.example.org")
def init(
    root: Annotated[str, typer.Option(help="The directory to make everything under.")] = "/opt/joblet",
    address: Annotated[
        list[str] | None,
        typer.Option(
            help="A name or address by which clients reach this host; may be repeated. Without: loopback alone."
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(help="The port of the API; 0: one that is free at each start.", min=0, max=65535)
    ] = 50051,
    cgroup_base: Annotated[
        str | None,
        typer.Option(
            help="Where the jobs' cgroups lie. Without: joblet.slice/joblet.service for /opt/joblet, one of its own for others."
        ),
    ] = None,
) -> None:
    """Make configuration, certificates, spool and state directories under one root."""
    from shlex import quote

    from jobletd.setup import Setup, make_root

    files = make_root(Setup(root, tuple(address or ()), port, cgroup_base))
    server, admin, viewer = files
    typer.echo(f"Set up under {os.path.abspath(root)}:")
    typer.echo(f"  {server}  the daemon's configuration, with its certificate and key")
    typer.echo(f"  {admin}  for clients that may do all")
    typer.echo(f"  {viewer}  for clients that may read")
    typer.echo("Next:")
    typer.echo(f"  joblet serve --config {quote(server)}")
    typer.echo(f"  rnx --config {quote(admin)} list")


@app.command(epilog="Example: joblet serve --config /opt/joblet/config/joblet-config.yml")
def serve(
    config: Annotated[
        str | None, typer.Option(help="The configuration file. Default: JOBLET_CONFIG_PATH, then /opt/joblet/config.")
    ] = None,
) -> None:
    """Run the daemon in the foreground; the line "ready" says that it takes jobs. Exit status: 0 told to end, 1 cannot run."""
    from jobletd.serve import serve as run

    raise typer.Exit(run(config, os.environ))


@app.command(epilog="Example: joblet reload")
def reload(
    config: Annotated[str | None, typer.Option(help="The configuration file of the daemon that is meant.")] = None,
) -> None:
    """Have the running daemon read configuration and certificates anew. Exit status: 1 if it refuses; nothing changes then."""
    from joblet.config.server import load_server_config
    from jobletd.local_call import CallFailed, is_running, reload_daemon

    socket_path = load_server_config(config, os.environ).socket_path
    if not is_running(socket_path):
        raise CallFailed("is not running", where="the daemon", todo="start it: it reads the configuration then")
    answer = reload_daemon(socket_path)
    typer.echo(f"in force: {', '.join(answer.at_once) or 'nothing that is new'}")
    if answer.restart:
        typer.echo(f"after a restart: {', '.join(answer.restart)}")


@app.command(epilog="Example: joblet doctor --json")
def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Annotated[str | None, typer.Option(help="A configuration file to check as well.")] = None,
) -> None:
    """Show what this host can do, what is missing, what that costs and how to mend it. Exit status: 1 if jobs can't run."""
    from jobletd.doctor import run_doctor

    raise typer.Exit(run_doctor(json_output=json, config_path=config))


CONFIG_HELP = "The configuration file. Default: JOBLET_CONFIG_PATH, then /opt/joblet/config."


@app.command(epilog="Example: joblet backup /var/backups/joblet-today.joblet-backup")
def backup(
    file: Annotated[str | None, typer.Argument(help="Where to. Default: beside the daemon's own backups.")] = None,
    config: Annotated[str | None, typer.Option(help=CONFIG_HELP)] = None,
    uploads: Annotated[bool, typer.Option(help="With the contents that clients uploaded for jobs.")] = True,
    secret_key: Annotated[
        bool, typer.Option("--secret-key", help="With the key that the sealed secrets can be opened with.")
    ] = False,
) -> None:
    """Write the state into one file, while the daemon runs: configuration, certificates, jobs, history; secrets stay sealed."""
    from jobletd.backup.command import back_up

    back_up(file, config, os.environ, uploads=uploads, secret_key=secret_key)


@app.command(epilog="Example: joblet restore /var/backups/joblet-today.joblet-backup")
def restore(
    file: Annotated[str, typer.Argument(help="What joblet backup, or the daemon itself, has written.")],
    config: Annotated[str | None, typer.Option(help="Where the configuration goes. Default: to where it was.")] = None,
    keep_config: Annotated[
        bool, typer.Option("--keep-config", help="Leave configuration and certificates as they are.")
    ] = False,
) -> None:
    """Put a backup back, here or on another machine, while no daemon runs: all or nothing. What was there is kept aside."""
    from jobletd.backup.command import put_back

    put_back(file, config, os.environ, keep_config=keep_config)


@app.command(epilog="Example: joblet cleanup --dry-run")
def cleanup(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    config: Annotated[str | None, typer.Option(help=CONFIG_HELP)] = None,
) -> None:
    """For emergencies, while no daemon runs: end all jobs, remove our cgroups, mounts, loop devices and interfaces.

    Exit status: 1 if something is left."""
    from jobletd.cleanup import clean_up

    raise typer.Exit(clean_up(config, os.environ, dry_run=dry_run))


def main() -> None:
    """Entry point: our own errors are one line each, never a traceback."""
    from joblet.errors import JobletError

    try:
        app()
    except JobletError as error:
        print(f"joblet: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)

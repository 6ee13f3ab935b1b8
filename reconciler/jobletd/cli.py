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
    executor: Annotated[
        str,
        typer.Option(help="Look at what runs jobs there as well: slurm looks at the cluster and each of its nodes."),
    ] = "local",
) -> None:
    """Show what this host can do, what is missing, what that costs and how to mend it. Exit status: 1 if jobs can't run."""
    from jobletd.doctor import run_doctor

    raise typer.Exit(run_doctor(json_output=json, config_path=config, executor=executor))


@app.command(epilog="Example: joblet report --since 1d --json")
def report(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    since: Annotated[str, typer.Option(help="How far back ended runs are counted: 7d, 24h.", metavar="TIME")] = "7d",
    config: Annotated[str | None, typer.Option(help="The configuration file of the daemon that is meant.")] = None,
) -> None:
    """Tell how the daemon is doing: memory, tasks, active jobs, connections, recent errors. Exit status: 3 if it does not run."""
    from jobletd.report import report as run

    raise typer.Exit(run(config, os.environ, json_output=json, since=since))


@app.command(epilog="Example: joblet harden --print --allow-from 192.0.2.0/24 >harden.sh")
def harden(
    print_it: Annotated[bool, typer.Option("--print", help="Print the script; nothing is changed.")] = False,
    allow_from: Annotated[
        list[str] | None,
        typer.Option(help="A network that clients come from; may be repeated. Without: all.", metavar="NETWORK"),
    ] = None,
    config: Annotated[str | None, typer.Option(help="The daemon's configuration.")] = None,
) -> None:
    """Print a script that hardens this host for the daemon: file modes, kernel settings, UFW, SELinux, fail2ban."""
    from joblet.config.server import config_path, load_server_config
    from jobletd.hardening.script import CannotHarden, hardening

    if not print_it:
        raise CannotHarden(
            "changes nothing by itself", where="joblet harden", todo="joblet harden --print, read it, run it"
        )
    path = config_path(config, os.environ)
    typer.echo(hardening(load_server_config(path, os.environ), path, allow_from or ()), nl=False)


CONFIG_HELP = "The configuration file. Default: JOBLET_CONFIG_PATH, then /opt/joblet/config."


@app.command(epilog="Example: joblet backup /var/backups/joblet-today.joblet-backup")
def backup(
    file: Annotated[str | None, typer.Argument(help="Where to. Default: beside the daemon's own backups.")] = None,
    directory: Annotated[
        str | None, typer.Option(help="A directory to write into, under a name with the time.", metavar="DIR")
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(help="Read it back, then keep the newest N in that directory.", metavar="N", min=1, max=1000),
    ] = None,
    config: Annotated[str | None, typer.Option(help=CONFIG_HELP)] = None,
    uploads: Annotated[bool, typer.Option(help="With the contents that clients uploaded for jobs.")] = True,
    secret_key: Annotated[
        bool, typer.Option("--secret-key", help="With the key that the sealed secrets can be opened with.")
    ] = False,
) -> None:
    """Write the state into one file, while the daemon runs: configuration, certificates, jobs, history; secrets stay sealed."""
    from jobletd.backup.command import Target, back_up
    from jobletd.backup.making import BackupOptions

    back_up(Target(file, directory, keep), config, os.environ, BackupOptions(uploads=uploads, secret_key=secret_key))


@app.command(epilog="Example: joblet restore --service /var/backups/joblet-today.joblet-backup")
def restore(
    file: Annotated[str, typer.Argument(help="What joblet backup, or the daemon itself, has written.")],
    config: Annotated[str | None, typer.Option(help="Where the configuration goes. Default: to where it was.")] = None,
    keep_config: Annotated[
        bool, typer.Option("--keep-config", help="Leave configuration and certificates as they are.")
    ] = False,
    service: Annotated[
        bool,
        typer.Option(
            "--service", help="Stop joblet.service before, start it after; if it does not get ready, all is as before."
        ),
    ] = False,
) -> None:
    """Put a backup back, here or on another machine, while no daemon runs: all or nothing. What was there is kept aside."""
    from jobletd.backup.command import put_back

    put_back(file, config, os.environ, keep_config=keep_config, service=service)


@app.command(epilog="Example: joblet cleanup --dry-run")
def cleanup(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    config: Annotated[str | None, typer.Option(help=CONFIG_HELP)] = None,
) -> None:
    """For emergencies, while no daemon runs: end all jobs, remove our cgroups, mounts, loop devices and interfaces.

    Exit status: 1 if something is left."""
    from jobletd.cleanup import clean_up

    raise typer.Exit(clean_up(config, os.environ, dry_run=dry_run))


@app.command(
    "sandbox-exec", epilog="Example, in a batch script: exec joblet sandbox-exec --request /shared/request.json"
)
def sandbox_exec(
    request: Annotated[
        str | None, typer.Option(help="A file with the request. Default: standard input.", metavar="FILE")
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Run nothing; clear away after jobs that Slurm killed. For its epilog.")
    ] = False,
    config: Annotated[str | None, typer.Option(help=CONFIG_HELP)] = None,
) -> None:
    """Run one attempt in its sandbox inside Slurm's allocation; Slurm's batch scripts are this, nobody types it.

    Exit status: the command's, 128+n for a signal, 75 if somebody else has claimed the attempt, 70 if it could not start."""
    # structlog would load it, to colour what nobody sees: a fifth of our start, which each job pays.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    from jobletd.executor.slurm_node.command import sandbox_exec as run
    from jobletd.executor.slurm_node.command import sweep_node

    raise typer.Exit(sweep_node(config, os.environ) if sweep else run(config, request, os.environ))


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

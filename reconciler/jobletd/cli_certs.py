"""``joblet certs``: the host's authority, the server's certificate and those of clients."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from joblet.pki.roles import Role

if TYPE_CHECKING:
    import datetime

    from joblet.config.server import ServerConfig
    from jobletd.certs.directory import CertificateDirectory
    from jobletd.certs.exchange import Exchanger
    from jobletd.certs.renewal import Wish

app = typer.Typer(help="Make, show, exchange and revoke certificates.", no_args_is_help=True, rich_markup_mode=None)
ConfigOption = Annotated[
    str | None, typer.Option(help="The daemon's configuration. Default: JOBLET_CONFIG_PATH, then /opt/joblet/config.")
]
AddressOption = Annotated[
    list[str] | None, typer.Option(help="A further name or address of the server; may be repeated.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(epilog="Example: joblet certs init --address jobs.example.org")
def init(config: ConfigOption = None, address: AddressOption = None) -> None:
    """Make authority, server and client certificates for a configuration that has none, and embed them.

    Where there is no configuration yet, make that too, with its directories, as joblet init does.
    """
    from joblet.config.server import config_path
    from jobletd.certs.directory import CertificateDirectory
    from jobletd.certs.issuing import first_certificates

    path = os.path.abspath(config_path(config, os.environ))
    if not os.path.exists(path):
        from jobletd.setup import CONFIG, Setup, SetupError, make_root

        root, name = os.path.split(os.path.dirname(path))
        if (name, os.path.basename(path)) != ("config", CONFIG):
            todo = f"put it into a directory config, with the name {CONFIG}, or write one without certificates first"
            raise SetupError("there is no such configuration, and none is made there", where=path, todo=todo)
        made = make_root(Setup(root, tuple(address or ()), 50051))
    else:
        directory = CertificateDirectory(path)
        with directory.locked():
            made = [path, *first_certificates(directory, tuple(address or ()), _now())]
    for one in made:
        typer.echo(one)


@app.command(epilog="Example: joblet certs show --json")
def show(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show authorities, the server's certificate and clients', and when each expires. Exit status: 0."""
    import json as json_module

    from jobletd.certs.inventory import as_json, inventory

    directory, current = _opened(config)
    entries = [as_json(one) for one in inventory(directory, current.security, _now())]
    if json:
        typer.echo(json_module.dumps(entries, indent=2))
        return
    lines = [["KIND", "NAME", "ROLE", "EXPIRES", "STATE", "SERIAL"]]
    for one in entries:
        shown = {**one, "role": one["role"] or "", "expires": str(one["expires"])[:10]}
        lines.append([str(shown[key.lower()]) for key in lines[0]])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


@app.command(epilog="Example: joblet certs verify")
def verify(config: ConfigOption = None) -> None:
    """Check that all certificates fit together and count now, and make a real call. Exit status: 1 if something is wrong."""
    from joblet.errors import JobletError
    from jobletd.certs.exchange import ADMIN
    from jobletd.certs.inventory import client_nodes
    from jobletd.certs.verification import call, check_client, check_server, own_client
    from jobletd.local_call import is_running

    directory, current = _opened(config)
    check_server(current, _now())
    typer.echo(f"{directory.config_path}: certificate, key and authorities fit together")
    failed = False
    for path in directory.client_files():
        try:
            for node in client_nodes(path):
                check_client(node, current, _now(), where=f"{path}: nodes.{node.name}")
            typer.echo(f"{path}: counts")
        except JobletError as error:
            failed = True
            typer.echo(f"joblet: {error}", err=True)
    if is_running(current.socket_path):
        call(own_client(current, directory.file(ADMIN)), current, expected=current.security.server_cert)
        typer.echo("the daemon serves the certificate and answers")
    else:
        typer.echo("the daemon is not running: no call was made")
    raise typer.Exit(1 if failed else 0)


@app.command(epilog="Example: joblet certs renew")
def renew(
    config: ConfigOption = None,
    address: AddressOption = None,
    all: Annotated[bool, typer.Option("--all", help="Also those that are not due.")] = False,
) -> None:
    """Renew the certificates that have expired or will within 30 days. With --address the server's gets a further name."""
    from jobletd.certs.renewal import Wish

    _exchange(config, Wish(everything=all, names=_names(address)))


@app.command(epilog="Example: joblet certs rotate --ca")
def rotate(
    config: ConfigOption = None,
    address: AddressOption = None,
    ca: Annotated[bool, typer.Option("--ca", help="The authority too; clients of the old one go on.")] = False,
    overlap: Annotated[
        bool, typer.Option("--overlap/--no-overlap", help="Whether what the old authority issued goes on counting.")
    ] = True,
) -> None:
    """Exchange all certificates: back up, renew, reload, verify by real calls, and put the old ones back if that fails.

    Clients elsewhere go on with the certificates that they have, until these expire.
    """
    from jobletd.certs.renewal import Wish

    _exchange(config, Wish(everything=True, new_authority=ca or not overlap, overlap=overlap, names=_names(address)))


@app.command(epilog="Example: joblet certs issue --role viewer --name anna --output anna.yml")
def issue(
    role: Annotated[
        Role, typer.Option(help="admin may do all, viewer may read, slurm is for the host that hands jobs to Slurm.")
    ],
    name: Annotated[str, typer.Option(help="Who gets it; it stands in the audit log.")],
    config: ConfigOption = None,
    days: Annotated[float, typer.Option(help="How long it counts, at most as long as the authority.", min=0.001)] = 365,
    address: Annotated[
        str | None, typer.Option(help="host:port for the client; default: as for rnx-config.yml.")
    ] = None,
    output: Annotated[str | None, typer.Option(help="The file to write; default: rnx-config-NAME.yml.")] = None,
) -> None:
    """Issue a client certificate, in a configuration file for that client."""
    from jobletd.certs.issuing import Order
    from jobletd.certs.issuing import issue as issue_order

    directory, current = _opened(config)
    with directory.locked():
        path = issue_order(directory, current, Order(name, role, days, address, output), _now())
    typer.echo(path)


@app.command(epilog="Example: joblet certs revoke --name anna")
def revoke(
    file: Annotated[str | None, typer.Argument(help="A client's configuration, or a certificate.")] = None,
    name: Annotated[str | None, typer.Option(help="All certificates of that name.")] = None,
    serial: Annotated[str | None, typer.Option(help="One, as joblet certs show prints it.")] = None,
    config: ConfigOption = None,
) -> None:
    """Revoke client certificates, at once: connections that stand are cut."""
    from jobletd.certs.errors import CertsError
    from jobletd.certs.issuing import Revocation, plan_revocation

    if [file, name, serial].count(None) != 2:
        raise CertsError("give one of FILE, --name and --serial", where="joblet certs revoke")
    directory, current = _opened(config)
    with directory.locked():
        planned, revoked = plan_revocation(directory, current, Revocation(name, serial, file), _now())
        _exchanger(directory).put_into_force(planned)
    for one in revoked:
        typer.echo(f"revoked: {one.serial:x} of {one.name} ({one.role})")


def _exchange(config: str | None, wish: Wish) -> None:
    from jobletd.certs.renewal import plan_exchange

    directory, current = _opened(config)
    with directory.locked():
        plan = plan_exchange(directory, current, wish, _now())
        if plan is None:
            typer.echo("nothing is due: joblet certs renew --all, or rotate, exchanges all the same")
            return
        _exchanger(directory).carry_out(plan)
    for what in plan.what:
        typer.echo(f"new: {what}")


def _exchanger(directory: CertificateDirectory) -> Exchanger:
    from joblet.config.server import load_server_config
    from jobletd.certs.exchange import Exchanger

    return Exchanger(directory, lambda: load_server_config(directory.config_path, os.environ), typer.echo, _now())


def _opened(config: str | None) -> tuple[CertificateDirectory, ServerConfig]:
    """The configuration in use, and its directory. Raises ConfigError."""
    from joblet.config.server import config_path, load_server_config
    from jobletd.certs.directory import CertificateDirectory

    path = config_path(config, os.environ)
    return CertificateDirectory(path), load_server_config(path, os.environ)


def _names(addresses: list[str] | None) -> tuple[str, ...]:
    from joblet.pki import check_name

    return tuple(map(check_name, addresses or ()))


def _now() -> datetime.datetime:
    import datetime

    return datetime.datetime.now(datetime.UTC)

"""``rnx secret``: values that jobs get and nobody sees. They are read from files or standard input, and never printed."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from rnx.options import Format, FormatOption, JsonOption, chosen
from rnx.target import Target, connected

FILENAME = "rnx-secret.json"
STDIN = "-"

Literals = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="A value. Others on this machine may see it in the list of processes."),
]
Files = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=PATH", help="A value from a file, or from standard input if PATH is -."),
]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Secrets by name.")]


@connected
def create(
    target: Target,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The secret's name.")],
    from_literal: Literals = None,
    from_file: Files = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace all values of one that is there.")] = False,
) -> None:
    """Keep a secret on the host, encrypted, for jobs that name it in spec.secrets.

    A file's bytes are taken as they are, its last newline too. On a terminal a value from standard input is asked for and
    not shown. Runs that are under way keep the value that they began with; the next attempt gets the new one.

    \b
    Example:
      rnx secret create db-password --from-file password=-
      rnx secret create tls --from-file tls.key=server.key --from-file tls.crt=server.crt
      rnx secret create token --from-literal token=t0p --replace
    """
    from rnx.failures import InvalidRequest
    from rnx.keeping import refuse_what_is_there

    given = [*literals(from_literal or ()), *contents(from_file or ())]
    keys = [key for key, _ in given]
    if not given:
        raise InvalidRequest("there is no value", todo=f"rnx secret create {name} --from-file KEY=- reads one")
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise InvalidRequest(f"the key {twice} is given twice", todo="give each key once")
    daemon = target.daemon()
    if not replace:
        refuse_what_is_there(daemon, "Secret", name, todo="--replace gives it these values and no others")
    manifest = {
        "apiVersion": "joblet/v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "spec": {"dataBase64": {key: base64.b64encode(value).decode() for key, value in given}},
    }
    (result,) = daemon.apply(json.dumps(manifest).encode(), filename=FILENAME)
    print(f"secret/{name} {result.action}")


@connected
def list_secrets(target: Target, output: FormatOption = Format.TABLE, json: JsonOption = False) -> None:
    """List secrets with their keys and sizes.

    \b
    Example:
      rnx secret list
    """
    from rnx.resources import show_resources

    show_resources(target.daemon().list_resources("Secret"), chosen(output, json), alone=False)


@connected
def remove(target: Target, names: Names) -> int:
    """Remove secrets. One that a run uses is not removed.

    \b
    Example:
      rnx secret remove db-password
    """
    from rnx.keeping import remove_all

    return remove_all(target.daemon(), "Secret", names)


def literals(texts: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    from rnx.failures import InvalidRequest

    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidRequest("--from-literal: there is no key or no value", todo="write KEY=VALUE")
        yield key, value.encode("utf-8", "surrogateescape")


def contents(texts: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    from rnx.failures import InvalidRequest

    paths = [text.partition("=") for text in texts]
    if sum(path == STDIN for _, _, path in paths) > 1:
        raise InvalidRequest("--from-file: standard input can be read once", todo="name files for the others")
    for key, equals, path in paths:
        if not key or not equals or not path:
            raise InvalidRequest("--from-file: there is no key or no path", todo="write KEY=PATH, or KEY=-")
        yield key, read_value(key, path)


def read_value(key: str, path: str) -> bytes:
    """A file's bytes as they are; from a terminal one line, without its end."""
    from pathlib import Path

    from rnx.failures import InvalidRequest

    if path == STDIN:
        if sys.stdin.isatty():
            from getpass import getpass

            return getpass(f"{key}: ").encode()
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"--from-file {key}={path}: {error.strerror}", todo="check the path") from error

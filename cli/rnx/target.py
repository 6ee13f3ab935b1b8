"""Which daemon a command talks to: ``--config`` and ``--node``, before the command or after it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rnx import exit_codes

if TYPE_CHECKING:
    from joblet.config import ClientConfig
    from rnx.daemon import Daemon

COMPLETION_SECONDS = 1.5
_OPTIONS = (
    ("config", "FILE", "The client configuration to use."),
    ("node", "NAME", "The node of the configuration to talk to."),
)


class Target:
    """The configuration and node that were asked for. Nothing is read or opened before it is needed."""

    def __init__(self, config: str | None, node: str | None) -> None:
        self.config_path = config
        self.node_name = node
        self._daemon: Daemon | None = None

    def config(self) -> ClientConfig:
        """Raises ConfigError."""
        from joblet.config import load_client_config

        return load_client_config(self.config_path, os.environ)

    def daemon(self, *, answer_seconds: float | None = None) -> Daemon:
        """Raises ConfigError if there is no such node."""
        if self._daemon is None:
            # gRPC writes to standard error on its own account unless told not to; what matters comes as an error.
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
            from rnx.daemon import ANSWER_SECONDS, Daemon

            node = self.config().node(self.node_name)
            self._daemon = Daemon(node, answer_seconds=answer_seconds or ANSWER_SECONDS)
        return self._daemon

    def close(self) -> None:
        if self._daemon is not None:
            self._daemon.close()


def connected(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a command of a function whose first argument is its Target: adds the options that choose it."""
    signature = inspect.signature(function, eval_str=True)
    own = list(signature.parameters.values())[1:]
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[str | None, typer.Option(f"--{name}", metavar=metavar, help=help_text)],
        )
        for name, metavar, help_text in _OPTIONS
    ]

    def command(**values: Any) -> Any:
        before = values.pop("ctx").obj or (None, None)
        target = Target(*(values.pop(option[0]) or given for option, given in zip(_OPTIONS, before, strict=True)))
        interrupted = False
        try:
            ended = function(target, **values)
            interrupted = ended == exit_codes.INTERRUPTED
            return ended
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            if not interrupted:  # else gRPC may have been caught with a lock in its hands, for which close would wait
                target.close()

    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    command.__signature__ = signature.replace(parameters=[*parameters, *options, context])  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in (*parameters, *options, context)}
    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    return command


def complete_job(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of jobs for the shell; none if the daemon does not answer quickly."""
    from joblet.errors import JobletError

    parent = ctx.parent.params if ctx.parent is not None else {}
    target = Target(*(ctx.params.get(name) or parent.get(name) for name, _, _ in _OPTIONS))
    try:
        daemon = target.daemon(answer_seconds=COMPLETION_SECONDS)
        return [job.name for job in daemon.list_jobs() if job.name.startswith(incomplete)]
    except JobletError:
        return []  # a shell has no place for an error in the middle of a line
    finally:
        target.close()

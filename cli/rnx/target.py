"""Which daemons a command talks to: ``--config``, ``--node`` and ``--all-nodes``, before the command or after it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rnx import exit_codes

if TYPE_CHECKING:
    from joblet.config import ClientConfig, NodeConfig
    from rnx.daemon import Daemon
    from rnx.several import Several

COMPLETION_SECONDS = 1.5
_CONFIG = ("config", "FILE", "The client configuration to use.")
_NODE = ("node", "NAME", "The node of the configuration to talk to.")
_NODES = ("node", "NAMES", "The node of the configuration to talk to, or several: a,b.")
_ALL = ("all_nodes", "", "Talk to all nodes of the configuration.")


class Target:
    """The configuration and nodes that were asked for. Nothing is read or opened before it is needed."""

    def __init__(self, config: str | None, node: str | None, all_nodes: bool = False) -> None:
        self.config_path = config
        self.node_name = node
        self._all = all_nodes
        self._daemons: dict[str, Daemon] = {}

    @property
    def is_many(self) -> bool:
        """Whether several nodes are meant, though there may be only one of them."""
        return self._all or "," in (self.node_name or "")

    def config(self) -> ClientConfig:
        """Raises ConfigError."""
        from joblet.config import load_client_config

        return load_client_config(self.config_path, os.environ)

    def daemon(self, *, answer_seconds: float | None = None) -> Daemon:
        """The one node that is meant. Raises ConfigError if there is no such node."""
        return self._connect(self.config().node(self.node_name), answer_seconds)

    def several(self, *, answer_seconds: float | None = None) -> Several:
        """The nodes that are meant. Raises ConfigError if there is none of that name."""
        from rnx.failures import InvalidRequest
        from rnx.several import Several

        if self._all and self.node_name:
            raise InvalidRequest("--node and --all-nodes exclude each other", todo="give one of the two")
        config = self.config()
        names = config.nodes if self._all else dict.fromkeys(filter(None, (self.node_name or "").split(",")))
        chosen = [config.node(name) for name in names]
        return Several({node.name: partial(self._connect, node, answer_seconds) for node in chosen})

    def _connect(self, node: NodeConfig, answer_seconds: float | None) -> Daemon:
        if node.name not in self._daemons:
            # gRPC writes to standard error on its own account unless told not to; what matters comes as an error.
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
            from rnx.daemon import ANSWER_SECONDS, Daemon

            self._daemons[node.name] = Daemon(node, answer_seconds=answer_seconds or ANSWER_SECONDS)
        return self._daemons[node.name]

    def close(self) -> None:
        for daemon in self._daemons.values():
            daemon.close()


def connected(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a command of a function whose first argument is its Target: adds the options that choose it."""
    return _command(function, (_CONFIG, _NODE), many=False)


def connected_to_many(function: Callable[..., Any]) -> Callable[..., Any]:
    """As ``connected``, of a command that can ask several nodes at once (``Target.is_many``)."""
    return _command(function, (_CONFIG, _NODES, _ALL), many=True)


def _command(
    function: Callable[..., Any], choosing: Sequence[tuple[str, str, str]], *, many: bool
) -> Callable[..., Any]:
    signature = inspect.signature(function, eval_str=True)
    own = list(signature.parameters.values())[1:]
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    options = [_option(*one) for one in choosing]

    def command(**values: Any) -> Any:
        before = values.pop("ctx").obj or (None, None, False)
        given = [values.pop(option[0]) or earlier for option, earlier in zip(choosing, before, strict=False)]
        target = Target(*(given if many else (*given, before[2])))
        if target.is_many and not many:
            from rnx.several import one_node_only

            raise one_node_only()
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


def _option(name: str, metavar: str, help_text: str) -> inspect.Parameter:
    flag = f"--{name.replace('_', '-')}"
    if not metavar:
        kind: Any = Annotated[bool, typer.Option(flag, help=help_text)]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
    kind = Annotated[str | None, typer.Option(flag, metavar=metavar, help=help_text)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def complete_job(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of jobs for the shell; none if the daemon does not answer quickly."""
    return _complete(ctx, incomplete, lambda daemon: (job.name for job in daemon.list_jobs()))


def complete_ref(ctx: typer.Context, incomplete: str) -> list[str]:
    """The same, and workflows with their kind before the name; jobs too once somebody writes that."""
    return _complete(ctx, incomplete, lambda daemon: _refs(daemon, incomplete))


def complete_workflow(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of workflows."""
    return _complete(ctx, incomplete, lambda daemon: (one.name for one in daemon.list_resources("Workflow")))


def _refs(daemon: Daemon, incomplete: str) -> Iterator[str]:
    before = "job/" if incomplete.startswith("job/") else ""
    if "/" not in incomplete or before:
        yield from (f"{before}{job.name}" for job in daemon.list_jobs())
    if not before:
        yield from (f"workflow/{one.name}" for one in daemon.list_resources("Workflow"))


def _complete(ctx: typer.Context, incomplete: str, names: Callable[[Daemon], Iterable[str]]) -> list[str]:
    from joblet.errors import JobletError

    parent = ctx.parent.params if ctx.parent is not None else {}
    node = str(ctx.params.get("node") or parent.get("node") or "").partition(",")[0]
    target = Target(ctx.params.get("config") or parent.get("config"), node or None)
    try:
        daemon = target.daemon(answer_seconds=COMPLETION_SECONDS)
        return [name for name in names(daemon) if name.startswith(incomplete)]
    except JobletError:
        return []  # a shell has no place for an error in the middle of a line
    finally:
        target.close()

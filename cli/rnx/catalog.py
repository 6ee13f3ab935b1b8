"""All commands of the client: name, where each is, and its line in ``rnx --help``. Loads none of them."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One command. function: ``module:name`` below rnx.commands. own_arguments: what follows the first is not ours.

    commands: it is a group of these (name, function, summary) and has no function of its own.
    """

    name: str
    function: str
    summary: str
    own_arguments: bool = False
    commands: tuple[tuple[str, str, str], ...] = ()


DECLARE = (
    Entry("apply", "apply:apply", "Make manifests the desired state"),
    Entry("diff", "diff:diff", "Show what an apply would change, and what that restarts"),
    Entry("validate", "validate:validate", "Check manifests, without a daemon"),
    Entry("get", "get:get", "Show jobs, as a table or with their manifests"),
    Entry("describe", "get:describe", "Show all that is known about a job"),
    Entry("delete", "delete:delete", "Stop jobs and remove them"),
    Entry("tree", "tree:tree", "Show what comes from where, or how a workflow stands"),
    Entry("sync", "sync:sync", "Look at a followed repository now"),
    Entry(
        "schedule",
        "",
        "Show what a schedule means",
        commands=(("preview", "schedule:preview", "Show when the jobs of a manifest would run"),),
    ),
    Entry("render", "render:render", "Print jobs as Kubernetes' manifests, without a daemon"),
    Entry("explain", "explain:explain", "Tell what a field of a manifest means"),
    Entry("schema", "explain:schema", "Print the JSON Schema of manifests"),
)
KEEP = (
    Entry(
        "volume",
        "",
        "Keep storage that outlives the jobs that use it",
        commands=(
            ("create", "volume:create", "Make a volume"),
            ("list", "volume:list_volumes", "List volumes with their sizes and users"),
            ("remove", "volume:remove", "Remove volumes with all that is in them"),
        ),
    ),
    Entry(
        "secret",
        "",
        "Keep values that jobs get and nobody sees",
        commands=(
            ("create", "secret:create", "Keep a secret on the host"),
            ("list", "secret:list_secrets", "List secrets with their keys and sizes"),
            ("remove", "secret:remove", "Remove secrets"),
        ),
    ),
    Entry(
        "network",
        "",
        "Declare networks whose jobs see each other by name",
        commands=(
            ("create", "network:create", "Make a network"),
            ("list", "network:list_networks", "List networks with their addresses and users"),
            ("remove", "network:remove", "Remove networks"),
        ),
    ),
)
RUN = (
    Entry("run", "run:run", "Run a command as a job", own_arguments=True),
    Entry("list", "listing:list_jobs", "List jobs with their latest run"),
    Entry("status", "status:status", "Show how a job's run stands or ended"),
    Entry("log", "log:log", "Print a run's output, or follow it"),
    Entry("stop", "stop:stop", "Stop a job's current run"),
    Entry("retry", "retry:retry", "Run a part of a workflow anew"),
    Entry("wait", "wait:wait", "Wait until a job runs or has ended"),
    Entry("events", "events:events", "Show what happened"),
    Entry("why", "why:why", "Tell why a job does not run, or why it ended"),
)
HOST = (
    Entry("nodes", "nodes:nodes", "Show the configured nodes and their state"),
    Entry("top", "top:top", "Follow a node's jobs on the whole terminal"),
    Entry(
        "monitor",
        "",
        "Show what a node and its jobs use",
        commands=(
            ("status", "monitor:status", "Show once what the node and its jobs use"),
            ("top", "monitor:top", "Show once the jobs that use most"),
            ("watch", "monitor:watch", "Show it again and again"),
        ),
    ),
    Entry("cordon", "maintenance:cordon", "Let a node launch nothing"),
    Entry("uncordon", "maintenance:uncordon", "Let a node launch again"),
    Entry("drain", "maintenance:drain", "Wait until nothing runs on a node, and end its daemon"),
    Entry("loglevel", "loglevel:loglevel", "Show or change how much the daemon logs"),
    Entry("version", "nodes:version", "Show the client's and the daemon's version"),
    Entry("doctor", "doctor:doctor", "Check configuration, certificates and connection"),
)
SECTIONS = (("Declare jobs", DECLARE), ("Run and follow jobs", RUN), ("What jobs use", KEEP), ("Nodes", HOST))
ENTRIES = {entry.name: entry for _, section in SECTIONS for entry in section}

"""What a manifest may ask for on this host: the one place where it is held against the configuration.

Asked twice: when a manifest is applied, whatever its source, so that whoever wrote it hears of it at once; and when a run starts,
because the configuration may have become stricter since. Nothing is allowed that the configuration does not name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from joblet.config.server import IsolationSection
from joblet.errors import JobletError
from joblet.manifest import Hook, Isolation, JobManifest, Manifest, Network, Seccomp, WorkflowManifest, key_of
from joblet.manifest.webhook_url import is_allowed, parse_webhook
from jobletd.workflows.steps import all_jobs


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not allowed. path: as in ``spec.isolation.network``."""

    path: str
    what: str
    todo: str


class NotAllowed(JobletError):
    """A manifest asks for more than the configuration allows."""

    def __init__(self, job: str, problems: tuple[Problem, ...]) -> None:
        self.job = job
        self.problems = problems
        first, *others = problems
        what = first.what + "".join(f"; {other.path}: {other.what}" for other in others)
        super().__init__(what, where=f"{job if '/' in job else f'job {job}'}: {first.path}", todo=first.todo)


EngineRule = Callable[[JobManifest], Iterable[Problem]]


def no_engine_rules(_: JobManifest) -> Iterable[Problem]:
    """Where nobody says what runs jobs."""
    return ()


@dataclass(frozen=True, slots=True)
class Policy:
    """capabilities: that may be granted. upkeep: what jobs may ask of the daemon. seccomp_profiles, rootfs_images: directories;
    empty: no path is allowed. engines: what a job may not ask of whatever runs it."""

    capabilities: frozenset[str] = frozenset()
    upkeep: frozenset[str] = frozenset()
    host_network: bool = False
    unconfined: bool = False
    seccomp_profiles: str = ""
    rootfs_images: str = ""
    validate_commands: bool = False
    webhooks: tuple[str, ...] = ()
    engines: EngineRule = no_engine_rules

    @classmethod
    def of(
        cls,
        config: IsolationSection,
        *,
        validate_commands: bool = False,
        webhooks: tuple[str, ...] = (),
        engines: EngineRule = no_engine_rules,
    ) -> Policy:
        return cls(
            capabilities=frozenset(config.allowed_capabilities),
            upkeep=frozenset(config.allowed_upkeep),
            host_network=config.allow_host_network,
            unconfined=config.allow_unconfined,
            seccomp_profiles=config.seccomp_profiles or "",
            rootfs_images=config.rootfs_images or "",
            validate_commands=validate_commands,
            webhooks=webhooks,
            engines=engines,
        )

    def check_new(self, manifest: Manifest) -> None:
        """As ``check``, for a manifest that is applied: its command has to be there too, if that is asked for."""
        self.check(manifest)
        if self.validate_commands and isinstance(manifest, JobManifest) and (problem := command_problem(manifest)):
            raise NotAllowed(manifest.metadata.name, (problem,))

    def check(self, manifest: Manifest) -> None:
        """Raises NotAllowed, with all that is not. Only jobs run; of the other kinds nothing is bounded."""
        if isinstance(manifest, WorkflowManifest):
            for job in all_jobs(manifest):
                self.check(job)
            if hooks := tuple(self._hook_problems(manifest.spec.notify)):
                raise NotAllowed(key_of(manifest), hooks)
        if not isinstance(manifest, JobManifest):
            return
        asked = manifest.spec
        problems = (*self._problems(asked.isolation), *self._hook_problems(asked.notify), *self.engines(manifest))
        if problems:
            raise NotAllowed(manifest.metadata.name, problems)

    def _problems(self, asked: Isolation) -> Iterator[Problem]:
        if asked.network is Network.HOST and not self.host_network:
            todo = "use network: none, or set isolation.allowHostNetwork: true in the daemon's configuration"
            yield Problem("spec.isolation.network", "the host's network is not allowed on this host", todo)
        if more := [name for name in asked.capabilities if name not in self.capabilities]:
            what = f"{', '.join(more)} {'is' if len(more) == 1 else 'are'} not allowed on this host"
            todo = "leave it out, or add it to isolation.allowedCapabilities in the daemon's configuration"
            yield Problem("spec.isolation.capabilities", what, todo)
        if more := [call for call in asked.upkeep if call not in self.upkeep]:
            what = f"{', '.join(more)} {'is' if len(more) == 1 else 'are'} not allowed on this host"
            todo = "leave it out, or add it to isolation.allowedUpkeep in the daemon's configuration"
            yield Problem("spec.isolation.upkeep", what, todo)
        if asked.seccomp == Seccomp.UNCONFINED and not self.unconfined:
            todo = "use default, or set isolation.allowUnconfined: true in the daemon's configuration"
            yield Problem("spec.isolation.seccomp", "unconfined is not allowed on this host", todo)
        elif asked.seccomp.startswith("/"):
            yield from _path_problems("seccomp", asked.seccomp, self.seccomp_profiles, "isolation.seccompProfiles")
        if asked.rootfs != "host":
            yield from _path_problems("rootfs", asked.rootfs, self.rootfs_images, "isolation.rootfsImages")

    def _hook_problems(self, hooks: tuple[Hook, ...]) -> Iterator[Problem]:
        for position, hook in enumerate(hooks):
            if hook.webhook is not None and not is_allowed(hook.webhook, self.webhooks):
                origin = parse_webhook(hook.webhook).origin
                todo = "ask for it to be added to hooks.allowedWebhooks in the daemon's configuration"
                yield Problem(
                    f"spec.notify[{position}].webhook", f"this URL of {origin} is not allowed on this host", todo
                )


NOTHING_SPECIAL = Policy()
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SYSTEM_DIRECTORIES = ("/usr/", "/bin/", "/sbin/", "/lib")


def command_problem(manifest: JobManifest) -> Problem | None:
    """Why the command cannot be run, as far as can be told before: a job brings files, volumes and roots of its own."""
    spec = manifest.spec
    if not spec.command or spec.isolation.rootfs != "host":
        return None
    command = spec.command[0]
    if "/" not in command:
        path = spec.env.get("PATH", PATH)
        if shutil.which(command, path=path) or not all(
            f"{one}/".startswith(SYSTEM_DIRECTORIES) for one in path.split(":")
        ):
            return None
        what = f"there is no command {command} on this host"
    elif command.startswith(SYSTEM_DIRECTORIES) and not os.access(command, os.X_OK):
        what = f"{command} is not on this host, or cannot be run"
    else:
        return None
    return Problem(
        "spec.command", what, "install it, or correct the name (joblet.validateCommands asks for this check)"
    )


def _path_problems(field: str, path: str, directory: str, key: str) -> Iterator[Problem]:
    """A path of the host counts only where the configuration says, wherever its links lead."""
    place = f"spec.isolation.{field}"
    if not directory:
        yield Problem(place, "no path is allowed on this host", f"set {key} in the daemon's configuration")
    elif not os.path.realpath(path).startswith(f"{os.path.realpath(directory)}/"):
        yield Problem(place, f"{path} does not lie below {directory}", f"put it there, or change {key}")
    elif not os.path.exists(path):
        yield Problem(place, f"{path} is not there", f"put it below {directory}")

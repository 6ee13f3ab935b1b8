"""What is wanted, what is so, and who brings the one in line with the other: the daemon less its host and its doors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from joblet.clock import Clock
from joblet.config.server import ServerConfig
from jobletd.backup.making import key_path
from jobletd.backup.settling import PutBack, settle, unmark
from jobletd.blobs.store import BlobStore
from jobletd.desired import DesiredState
from jobletd.executor import Executor
from jobletd.headroom import Headroom
from jobletd.host_parts import HostParts, memory_bound
from jobletd.job_bounds import JobBounds
from jobletd.lifetime import Lifetime
from jobletd.opened_state import OpenedState
from jobletd.policy import Policy
from jobletd.reconciler import Reconciler
from jobletd.registry import Registry
from jobletd.reloading import blob_limits_of, places_of
from jobletd.resources import Resources
from jobletd.saves import EventDraft
from jobletd.secrets.controller import SecretController
from jobletd.secrets.host_key import HostKey
from jobletd.secrets.vault import Vault
from jobletd.sources.git.contents import Contents
from jobletd.sources.git.controller import GitSources
from jobletd.state_facts import told_of
from jobletd.tracing.sending import OpenTracing
from jobletd.workflows.controller import Workflows

log = structlog.get_logger("serve")


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """executor: of all hosts, as one."""

    registry: Registry
    executor: Executor
    resources: Resources
    reconciler: Reconciler
    desired: DesiredState
    blobs: BlobStore
    vault: Vault
    git: GitSources
    workflows: Workflows
    headroom: Headroom

    async def start(self, life: Lifetime, put_back: PutBack | None) -> None:
        """On a host whose parts have started."""
        await self.resources.start()
        if put_back is not None:
            await self._settle(put_back)
        await self.reconciler.start()
        life.callback(self.reconciler.close)

    async def _settle(self, put_back: PutBack) -> None:
        lost = await settle(self.registry, self.executor)
        await self.workflows.pass_over_ticks()
        await unmark(self.registry.store)
        log.warning("the state of a backup is in line with the host", origin=put_back.origin, outcomes_lost=lost)
        await self.registry.record(EventDraft("", "", "Warning", "PutBack", told_of(put_back)))


async def make_control_plane(
    life: Lifetime,
    config: ServerConfig,
    policy: Policy,
    clock: Clock,
    env: Mapping[str, str],
    state: OpenedState,
    host: HostParts,
    tracing: OpenTracing | None,
) -> ControlPlane:
    """All that is on record is in memory then; nothing is done about it yet. Raises JobletError."""
    blobs = BlobStore(f"{config.state.directory}/blobs", blob_limits_of(config.uploads))
    blobs.open()
    registry = Registry(state.store, clock)
    await registry.load()
    if tracing is not None:
        registry.tracing = tracing.tracing
        await registry.tracing.load(state.store)
    directories = (config.state.directory, config.logs.directory)
    headroom = Headroom(directories, config.state.min_free_bytes, clock, memory=memory_bound)
    host.volumes.start(registry.resources)
    life.callback(host.volumes.close)
    vault = Vault(HostKey(key_path(config), env, anything_sealed=registry.anything_sealed))
    git = GitSources(f"{config.state.directory}/git", registry, vault, lambda: Contents(blobs, headroom.check), clock)
    workflows = Workflows(registry)
    controllers = host.controllers | {"Secret": SecretController(vault), "GitSource": git, "Workflow": workflows}
    resources = Resources(registry, controllers, vault)
    reconciler = Reconciler(
        registry,
        host.executor,
        resources,
        bounds=places_of(config.joblet),
        job_bounds=JobBounds.of(config.joblet),
        journal=state.launches,
        room=headroom.why,
    )
    desired = DesiredState(registry, host.executor, reconciler.nudge, resources, blobs, policy, headroom.check)
    git.begin(desired, resources.look_at)
    await workflows.begin(desired, resources.look_at, reconciler.look)
    return ControlPlane(registry, host.executor, resources, reconciler, desired, blobs, vault, git, workflows, headroom)

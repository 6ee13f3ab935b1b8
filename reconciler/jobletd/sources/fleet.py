"""All about following repositories that the configuration says: which ones, which host this is, and who may tell of a push."""

from __future__ import annotations

from joblet.config.server import ServerConfig
from jobletd.sources.configured import ConfiguredSources
from jobletd.sources.desired_jobs import DesiredJobs
from jobletd.sources.git.controller import GitSources
from jobletd.sources.git.webhook import Webhook


class Fleet:
    """The parts that a reload of the configuration changes, together."""

    def __init__(self, config: ServerConfig, git: GitSources, desired: DesiredJobs) -> None:
        self.labels = dict(config.node.labels)
        self.configured = ConfiguredSources(config.gitops.sources, desired)
        self._git = git
        self._webhook = Webhook(config.webhook, git.pushed) if config.webhook.enabled else None
        git.reconfigure(self.labels)

    async def start(self) -> int | None:
        """Listen for hosters, if the configuration says so. Returns the port. Raises WebhookError, ConfigError."""
        return await self._webhook.start() if self._webhook is not None else None

    async def stop(self) -> None:
        if self._webhook is not None:
            await self._webhook.stop()

    def check(self, config: ServerConfig) -> None:
        """Whether this can be put into force. Raises ConfigError."""
        if self._webhook is not None:
            self._webhook.check(config.webhook)

    def reconfigure(self, config: ServerConfig) -> None:
        """Put it into force."""
        if self._webhook is not None:
            self._webhook.reconfigure(config.webhook)
        self.labels = dict(config.node.labels)
        self._git.reconfigure(self.labels)
        self.configured.reconfigure(config.gitops.sources)

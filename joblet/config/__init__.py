"""Configuration files of the client (here) and of the daemon (``joblet.config.server``, which needs pydantic)."""

from joblet.config.client import ClientConfig, NodeConfig, load_client_config
from joblet.config.errors import ConfigError

__all__ = ["ClientConfig", "ConfigError", "NodeConfig", "load_client_config"]

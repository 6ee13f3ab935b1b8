"""The variables that win over the daemon's configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import ValidationError

from joblet.config.errors import ConfigError
from joblet.config.section import Section

if TYPE_CHECKING:
    from joblet.config.server import ServerConfig

# A later one wins: LOG_LEVEL is a name that others use too.
VARIABLES: dict[str, tuple[str, str]] = {
    "JOBLET_SERVER_ADDRESS": ("server", "address"),
    "JOBLET_MODE": ("server", "mode"),
    "LOG_LEVEL": ("logging", "level"),
    "JOBLET_LOG_LEVEL": ("logging", "level"),
    "JOBLET_LOG_FORMAT": ("logging", "format"),
}
_TODO = {"mode": "use server", "level": "use DEBUG, INFO, WARNING or ERROR", "format": "use text or json"}


def with_environment(config: ServerConfig, env: Mapping[str, str]) -> tuple[ServerConfig, dict[str, str]]:
    """The configuration as the environment changes it, and which variable gave which key. Raises ConfigError."""
    given_by: dict[str, str] = {}
    for variable, (name, alias) in VARIABLES.items():
        value = env.get(variable)
        if not value:
            continue
        section: Section = getattr(config, name)
        fields = {info.alias: field for field, info in type(section).model_fields.items()}
        try:
            new = type(section).model_validate({alias: value})
        except ValidationError as error:
            what = f"{value!r} is not a {alias} that exists"
            raise ConfigError(what, where=variable, todo=_TODO.get(alias, "")) from error
        field = fields[alias]
        config = config.model_copy(update={name: section.model_copy(update={field: getattr(new, field)})})
        given_by[f"{name}.{alias}"] = variable
    return config, given_by

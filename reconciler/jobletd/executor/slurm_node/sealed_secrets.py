"""An attempt's secrets on their way to whichever node Slurm chooses.

They lie sealed in the attempt's directory, for root alone, until the node that has claimed the attempt takes them away, and the
key, made for this attempt alone, is in the batch script. So neither the shared directory (its server, its backups, who listens
there) nor Slurm's state gives a value away, and what is left of both afterwards opens nothing.
"""

from __future__ import annotations

import base64
import os
from typing import Any

from joblet.atomicfile import write_atomic
from joblet.errors import JobletError
from jobletd.executor import GivenSecrets
from jobletd.executor.slurm_node.place import Place

SECRETS = "secrets"
KEY_BYTES = 32
WHERE = "the batch script"
_FILE, _VARIABLE = "file ", "env "


class SecretsGone(JobletError):
    """An attempt's secrets are not where its node looks for them."""


def new_key() -> str:
    """For one attempt."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def put(place: Place, attempt_id: str, key: str, given: GivenSecrets) -> None:
    """Leave them for the node. Raises OSError."""
    from jobletd.secrets.envelope import SealingKey, seal

    values = {_FILE + path: value for path, value in given.files.items()}
    values |= {_VARIABLE + name: value for name, value in given.env.items()}
    sealing = SealingKey.from_material(base64.b64decode(key), where=WHERE)
    write_atomic(f"{place.directory}/{SECRETS}", seal(sealing, attempt_id, values), durable=True)


def are_there(place: Place) -> bool:
    """Whether they wait for their node."""
    return os.path.exists(f"{place.directory}/{SECRETS}")


def take(place: Place, attempt_id: str, key: str) -> GivenSecrets:
    """Take them away. Raises SecretsGone, OSError, and SecretDamaged for what does not open."""
    # The library behind it takes 6 MiB of an allocation, of which most attempts have none to spare.
    from jobletd.secrets.envelope import SealingKey, unseal

    path = f"{place.directory}/{SECRETS}"
    try:
        with open(path, "rb") as file:
            envelope = file.read()
    except FileNotFoundError:
        raise SecretsGone("its secrets are not in the shared directory", where=path, todo="run the job again") from None
    os.unlink(path)
    sealing = SealingKey.from_material(base64.b64decode(key), where=WHERE)
    values = unseal(sealing, attempt_id, envelope, what=f"the secrets of {attempt_id}")
    return GivenSecrets(
        {name.removeprefix(_FILE): value for name, value in values.items() if name.startswith(_FILE)},
        {name.removeprefix(_VARIABLE): value for name, value in values.items() if name.startswith(_VARIABLE)},
    )


def key_in(document: dict[str, Any]) -> str:
    """Of a request; empty: the attempt has no secrets."""
    return str(document.get("secrets_key") or "")

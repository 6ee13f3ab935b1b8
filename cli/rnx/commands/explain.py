"""``rnx explain`` and ``rnx schema``: the manifest's form, from the models alone, without a daemon."""

from __future__ import annotations

from typing import Annotated

import typer


def explain(
    path: Annotated[str, typer.Argument(metavar="[FIELD]", help="As in spec.limits.memory; all if left out.")] = "",
) -> None:
    """Tell what a field of a manifest means.

    \b
    Example:
      rnx explain spec.limits
      rnx explain spec.limits.memory
      rnx explain volume.spec
    """
    from joblet.manifest import explain as explain_field
    from rnx.output.status import line
    from rnx.output.table import aligned

    field = explain_field(path)
    print(line("Field", field.path or "Job"))
    print(line("Type", field.type))
    if field.default:
        print(line("Default", field.default))
    if field.required and field.path:
        print(line("Required", "yes"))
    print(f"\n{field.description}")
    if field.children:
        print("\nFields:")
        rows = [
            [
                child.path.rpartition(".")[2],
                child.type,
                f"= {child.default}" if child.default else "",
                child.description,
            ]
            for child in field.children
        ]
        for text in aligned(rows):
            print(f"  {text}")


def schema(
    kind: Annotated[str, typer.Argument(metavar="[KIND]", help="job, volume ...")] = "job",
) -> None:
    """Print the JSON Schema of one kind of manifest.

    Editors that know YAML check and complete manifests with it.

    \b
    Example:
      rnx schema > job.schema.json
      rnx schema volume
    """
    from joblet.manifest import schema_of
    from rnx.kinds import kind_of
    from rnx.output.documents import print_json

    print_json(schema_of(kind_of(kind)))

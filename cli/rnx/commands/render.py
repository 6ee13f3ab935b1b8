"""``rnx render``: manifests in the words of another engine, without a daemon."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from rnx.options import FilesOption, RecursiveOption


class Engine(StrEnum):
    """What manifests can be rendered for."""

    KUBERNETES = "kubernetes"


def render(
    filename: FilesOption,
    to: Annotated[Engine, typer.Option("--to", help="The engine.")],
    recursive: RecursiveOption = False,
    image: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="The image of the containers, for which manifests have no word.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Print nothing if anything would be lost.")] = False,
) -> None:
    """Print jobs as another engine's manifests, without a daemon.

    Each field that does not mean the same there is named in a comment: as lost, or as different. Exit code 0: printed, 2: with
    --strict something would be lost, or a manifest is wrong.

    \b
    Example:
      rnx render --to kubernetes -f job.yml
      rnx render --to kubernetes -f jobs/ --image registry.example.org/tools:1 --strict
    """
    from joblet.manifest import JobManifest
    from joblet.manifest.yaml_writer import yaml_text
    from rnx.manifest_files import ManifestFileErrors, read_files
    from rnx.output.terminal import printable
    from rnx.rendering.kubernetes import render_job

    assert to is Engine.KUBERNETES
    lines: list[str] = []
    lost: list[str] = []
    for file in read_files(filename, recursive=recursive):
        for manifest in file.manifests:
            name = f"{manifest.kind} {manifest.metadata.name}"
            if not isinstance(manifest, JobManifest):
                what = "only jobs are rendered"
                lines += ["---", f"# {name}, {file.name}: {what}"]
                lost.append(f"{file.name}: {name}: {what}")
                continue
            rendered = render_job(manifest, image)
            lines += ["---", f"# {name}, {file.name}" + ("" if rendered.documents else ": not rendered")]
            lines += [f"# {printable(str(finding))}" for finding in rendered.findings]
            for number, document in enumerate(rendered.documents):
                lines += ["---"] * (number > 0) + yaml_text(document).splitlines()
            lost += [f"{file.name}: {name}: {finding.path}: {finding.what}" for finding in rendered.lost]
    if strict and lost:
        raise ManifestFileErrors(
            lost, todo="nothing was printed: leave that out of the manifest, or render without --strict"
        )
    print("\n".join(lines))

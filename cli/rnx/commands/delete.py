"""``rnx delete``: jobs are stopped and removed."""

from __future__ import annotations

from typing import Annotated

import typer

from rnx import exit_codes
from rnx.options import RecursiveOption
from rnx.target import Target, complete_ref, connected_to_many


@connected_to_many
def delete(
    target: Target,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", help="Jobs by name, or KIND/NAME.", autocompletion=complete_ref),
    ] = None,
    filename: Annotated[
        list[str] | None,
        typer.Option("--filename", "-f", metavar="PATH", help="Delete the jobs that these manifests declare."),
    ] = None,
    recursive: RecursiveOption = False,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="A job that is not there is no error.")
    ] = False,
) -> int:
    """Stop jobs and remove them; or remove what is no job, named as in volume/data.

    Their history and output stay for as long as spec.history says. All are tried, even if one fails; the exit code is
    that of the first failure. With --all-nodes or several nodes: on each that has it.

    \b
    Example:
      rnx delete hello limits
      rnx delete -f job.yml
      rnx delete volume/data
      rnx delete workflow/nightly
    """
    from joblet.manifest import key_of
    from rnx.failures import ClientError, InvalidRequest, NotFound
    from rnx.kinds import split_key
    from rnx.main import report
    from rnx.manifest_files import read_files

    wanted = list(names or ())
    if filename:
        files = read_files(filename, recursive=recursive)
        # Jobs first: what they use can go only when they are gone.
        wanted += sorted((key_of(one) for file in files for one in file.manifests), key=lambda key: "/" in key)
    if not wanted:
        raise InvalidRequest("nothing to delete was named", todo="rnx delete NAME, or rnx delete -f FILE")
    if target.is_many:
        from rnx.merged import delete_from

        return delete_from(target.several(), wanted, ignore_not_found=ignore_not_found)
    daemon, code = target.daemon(), exit_codes.OK
    for name in wanted:
        try:
            kind, short = split_key(name)
            if kind == "Job":
                daemon.delete(short)
            else:
                daemon.delete_resource(kind, short)
            print(f"{kind.lower()}/{short} deleted", flush=True)
        except NotFound as error:
            code = code or (exit_codes.OK if ignore_not_found else report(error))
        except ClientError as error:
            code = code or report(error)
    return code

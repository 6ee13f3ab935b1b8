"""A repository as this host has it: a bare mirror that is fetched into and read from by object, never checked out."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from joblet.errors import JobletError
from joblet.manifest import GitSelection, GitSignature
from jobletd.sources.git.access import Access, memory_file
from jobletd.sources.git.command import Call, GitError, git, git_status, printable, reason_of
from jobletd.sources.git.versions import highest

WANTED, APPLIED = "refs/joblet/wanted", "refs/joblet/applied"
SHORT = 12  # digits of a commit that are shown
# What a mirror says that a power cut has damaged: it is made anew then.
_DAMAGE = ("not a git repository", "object file", "corrupt", "bad object", "unable to read", "packfile", "bad tree")


class NoSuchRevision(JobletError):
    """The repository has no such branch, tag, commit or directory."""


class NotSigned(JobletError):
    """The required signature is not there, or not one of those that are trusted."""


@dataclass(frozen=True, slots=True)
class Remote:
    """What the repository has at the place that is followed. label: for people. object: of a commit or an annotated tag."""

    label: str
    ref: str  # as in refs/heads/main; a commit's id if that is followed
    object: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a tree. path: below the directory asked for; bytes that are not UTF-8 as ``\\xff``, then it is not valid."""

    path: str
    mode: str
    type: str
    object: str
    size: int
    valid: bool


@dataclass(frozen=True, slots=True)
class CommitFacts:
    """Whose commit it is. author: name and address."""

    id: str
    author: str
    subject: str

    def __str__(self) -> str:
        return f"{self.id[:SHORT]} by {self.author}: {self.subject}"


class Mirror:
    """directory: of the mirror. seconds: how long one call that goes to the repository may take."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._local = Call(directory)

    @property
    def place(self) -> str:
        """The directory that it lies in, on the same disk."""
        return os.path.dirname(self.directory)

    async def ensure(self) -> None:
        """Make the mirror unless it is there. Raises GitError, OSError."""
        if self._is_there():
            return
        self.discard()
        await git(self._local, "init", "--quiet", "--bare", "--template=", self.directory)

    def _is_there(self) -> bool:
        return os.path.isdir(f"{self.directory}/objects") and os.path.isfile(f"{self.directory}/HEAD")

    def discard(self) -> None:
        """Remove the mirror; the next look makes another."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def is_damaged(self, error: JobletError) -> bool:
        """Whether an error tells of the mirror itself."""
        return isinstance(error, GitError) and any(word in error.what for word in _DAMAGE)

    # -- what goes to the repository --

    async def look(self, url: str, wanted: GitSelection, access: Access, seconds: float) -> Remote:
        """What the repository has now. Raises GitError, NoSuchRevision."""
        if wanted.commit is not None:
            return Remote(wanted.commit[:SHORT], wanted.commit, wanted.commit)
        pattern = _pattern(wanted)
        out = await git(_call(self.directory, access, seconds), "ls-remote", "--quiet", "--symref", "--", url, pattern)
        refs, symbolic = refs_of(out)
        if wanted.semver:
            tags = [ref.removeprefix("refs/tags/") for ref in refs if ref.startswith("refs/tags/") and "^{}" not in ref]
            tag = highest(tags, wanted.semver)
            if tag is None:
                todo = f"its tags: {', '.join(tags[-5:])}" if tags else "it has no tags"
                raise NoSuchRevision(f"no tag is a version in {wanted.semver}", where=url, todo=todo)
            pattern = f"refs/tags/{tag}"
        elif pattern == "HEAD":
            pattern = symbolic.get("HEAD", "HEAD")
            refs.setdefault(pattern, refs.get("HEAD", ""))
        if not refs.get(pattern):
            what = "it has no commit yet" if pattern == "HEAD" else f"it has no {pattern}"
            raise NoSuchRevision(what, where=url, todo="push it, or change spec.ref")
        return Remote(pattern.split("/", 2)[-1], pattern, refs[pattern])

    async def fetch(self, url: str, remote: Remote, access: Access, seconds: float) -> str:
        """Bring what was seen here. Returns the object that is there now, which may be newer. Raises GitError, NoSuchRevision."""
        await self.ensure()
        call = _call(self.directory, access, seconds)
        options = ("--quiet", "--force", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        try:
            await git(call, "fetch", *options, "--", url, f"+{remote.ref}:{WANTED}")
        except GitError as error:
            if "not our ref" not in str(error):  # what a server says of a commit that it has not, or does not show
                raise
            raise NoSuchRevision(f"it has no {remote.ref}", where=url, todo="push it, or change spec.ref") from error
        return await self.object_of(WANTED)

    # -- what is read here --

    async def object_of(self, revision: str) -> str:
        return (await git(self._local, "rev-parse", "--verify", "--end-of-options", revision)).decode().strip()

    async def commit_of(self, object_id: str) -> str:
        """The commit that an object is or an annotated tag names. Raises NoSuchRevision."""
        try:
            return await self.object_of(f"{object_id}^{{commit}}")
        except GitError as error:
            raise NoSuchRevision(f"{object_id[:SHORT]} is no commit", todo="change spec.ref") from error

    async def facts(self, commit: str, path: str | None = None) -> CommitFacts:
        """Of a commit; or of the last one up to it that has changed that file."""
        limit = ("--", f":(top,literal){path}") if path is not None else ("--",)
        form = "--format=%H%x00%an <%ae>%x00%s"
        out = await git(self._local, "log", "-1", form, "--no-show-signature", "--end-of-options", commit, *limit)
        parts = out.decode(errors="replace").rstrip("\n").split("\0")
        if len(parts) != 3:
            return await self.facts(commit)  # it came with a merge that changed nothing of it
        return CommitFacts(parts[0], printable(parts[1])[:100], printable(parts[2])[:100])

    async def is_rewritten(self, old: str, new: str) -> bool:
        """Whether the history of ``new`` does not go on from ``old``. Nobody can tell once the old one is not here any more."""
        status, _, _ = await git_status(self._local, "merge-base", "--is-ancestor", old, new)
        return status == 1

    async def entries(self, commit: str, path: str) -> list[Entry]:
        """All below a directory. Raises NoSuchRevision if there is none, GitError if there is too much."""
        tree = f"{commit}^{{tree}}" if path == "." else f"{commit}:{path}"
        # A few small objects can make a tree without end: reading stops at the bound of every call.
        status, listed, err = await git_status(self._local, "ls-tree", "-r", "-z", "--long", tree)
        if status != 0:
            await self._tell_no_directory(commit, path, tree)
            raise GitError(reason_of(err, status))
        return [entry_of(record) for record in listed.split(b"\0") if record]

    async def _tell_no_directory(self, commit: str, path: str, tree: str) -> None:
        """Raises NoSuchRevision if that is why it could not be listed."""
        status, out, _ = await git_status(self._local, "cat-file", "-t", tree)
        if status != 0 or out.strip() != b"tree":
            what = "is no directory (a link, or a file)" if status == 0 else "is not there"
            raise NoSuchRevision(f"{path} {what} in commit {commit[:SHORT]}", todo="change spec.path, or add it")

    async def contents(self, objects: Sequence[str], total_bytes: int) -> list[bytes]:
        """The contents of blobs, in their order. total_bytes: their sizes together."""
        if not objects:
            return []
        stdin = "".join(f"{one}\n" for one in objects).encode()
        call = Call(self.directory, stdin=stdin, output_bytes=total_bytes + 128 * len(objects))
        return _blobs(await git(call, "cat-file", "--batch", "--buffer"), len(objects))

    async def write(self, object_id: str, fd: int, size: int) -> None:
        """Write a blob of any size to a file. Raises GitError."""
        await git(Call(self.directory, stdout=fd), "cat-file", "blob", object_id)
        if os.fstat(fd).st_size != size:
            raise GitError(f"{object_id[:SHORT]} is not what its tree says")

    async def keep(self, commit: str) -> None:
        """Note the commit that is in force, so that it is not collected."""
        await git(self._local, "update-ref", APPLIED, commit)

    async def verify(self, object_id: str, signature: GitSignature) -> None:
        """Whether somebody trusted has signed that commit or annotated tag. Raises NotSigned, GitError."""
        kind = (await git(self._local, "cat-file", "-t", object_id)).decode().strip()
        with ExitStack() as stack:
            signers = stack.enter_context(memory_file("signers", (signature.ssh_signers or "").encode()))
            home = stack.enter_context(tempfile.TemporaryDirectory(dir=os.path.dirname(self.directory), prefix=".gpg-"))
            if signature.gpg_keys:
                await _import_keys(home, signature.gpg_keys)
            call = Call(
                self.directory,
                config={"gpg.ssh.allowedSignersFile": signers, "gpg.minTrustLevel": "undefined"},
                environment={"GNUPGHOME": home},
            )
            status, _, err = await git_status(call, f"verify-{kind}", "--raw", object_id)
        if status != 0:
            lines = [printable(line) for line in err.decode(errors="replace").splitlines()]
            why = "; ".join(line.removeprefix("[GNUPG:] ") for line in lines if line)[:200]
            what = f"the {kind} {object_id[:SHORT]} is not signed by anybody in spec.signature"
            raise NotSigned(f"{what}: {why}" if why else f"{what}: it has no signature", todo="sign it, or add the key")


async def _import_keys(home: str, keys: str) -> None:
    """Make a keyring of these keys alone. Raises GitError."""
    try:
        process = await asyncio.create_subprocess_exec(
            *("gpg", "--homedir", home, "--batch", "--quiet", "--no-autostart", "--no-auto-check-trustdb", "--import"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise GitError("gpg cannot be run", where="spec.signature.gpgKeys", todo="apt-get install gpg") from error
    _, err = await process.communicate(keys.encode())
    if process.returncode != 0:
        what = printable(err.decode(errors="replace"))[:200]
        raise GitError(
            f"these are no OpenPGP keys: {what}", where="spec.signature.gpgKeys", todo="gpg --export --armor ID"
        )


def _pattern(wanted: GitSelection) -> str:
    """What to ask the repository for."""
    if wanted.branch:
        return f"refs/heads/{wanted.branch}"
    if wanted.tag:
        return f"refs/tags/{wanted.tag}"
    return "refs/tags/*" if wanted.semver else "HEAD"


def _call(directory: str, access: Access, seconds: float) -> Call:
    return Call(directory, seconds, config=access.config, environment=access.environment, protocols=access.protocols)


def refs_of(out: bytes) -> tuple[dict[str, str], dict[str, str]]:
    """Objects by ref, and what symbolic refs name, of ``ls-remote --symref``."""
    refs: dict[str, str] = {}
    symbolic: dict[str, str] = {}
    for line in out.decode(errors="replace").splitlines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: "):
            symbolic[name] = value.removeprefix("ref: ")
        else:
            refs[name] = value
    return refs, symbolic


def entry_of(record: bytes) -> Entry:
    head, _, path = record.partition(b"\t")
    mode, kind, object_id, size = head.decode().split()
    shown = path.decode("utf-8", "backslashreplace")
    return Entry(shown, mode, kind, object_id, int(size) if size != "-" else 0, _is_utf8(path))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _blobs(out: bytes, count: int) -> list[bytes]:
    """The contents out of what ``cat-file --batch`` wrote: ``<object> blob <size>``, a newline, the bytes, a newline."""
    found: list[bytes] = []
    place = 0
    for _ in range(count):
        end = out.index(b"\n", place)
        size = int(out[place:end].split()[2])
        found.append(out[end + 1 : end + 1 + size])
        place = end + 1 + size + 1
    return found

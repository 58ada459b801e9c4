"""Values that flow between the rooms: frozen, the unit in the name, standard library only.

argv, environ, byos.toml ─ settle ▶ Job          what is asked
Job ─ claim ▶ Attempt                            run id, number, what an earlier attempt left
Job ─ fetch ▶ Fetched …                          one per input
Case ─ solve ▶ Solved                            how the command ended
Case ─ publish ▶ Published …, Unpublished …      one per output
… ─ record ▶ manifest.json                       the document of the run
Case, Published ─ purge ▶ Purged                 what went, what was left and why

Paths inside a case or an archive are ``str`` with "/" between components, relative, undecodable bytes as surrogates
(``os.fsdecode``). Times of the clock are seconds since 1970 UTC; durations come from the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, NamedTuple, Protocol, TypeVar

S = TypeVar("S")
T = TypeVar("T")


# ---------------------------------------------------------------- what is asked


@dataclass(frozen=True, order=True)
class S3Url:
    """``s3://bucket/key``; *bucket* may be an access point's ARN. A key that ends in "/", or is empty, is a prefix."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def is_prefix(self) -> bool:
        return not self.key or self.key.endswith("/")

    @property
    def name(self) -> str:
        """The last component of the key: ``hsdi.zip``."""
        return self.key.rstrip("/").rpartition("/")[2]

    def child(self, path: str) -> S3Url:
        """The object *path* below this prefix."""
        return S3Url(self.bucket, self.key + path)


@dataclass(frozen=True)
class FetchSettings:
    local: tuple[str, ...] = ()
    """Globs of the run directory whose files are copied over the case."""
    max_bytes: int = 0
    """What an archive may unpack to, in bytes; 0: bound by the free disk alone."""
    max_members: int = 0
    """How many members an archive may have; 0: the generous limit of ``archive.plan``."""
    max_ratio: float = 0.0
    """Unpacked bytes per packed byte of an archive; 0: the generous limit of ``archive.plan``."""


@dataclass(frozen=True)
class TemplateSettings:
    files: tuple[str, ...] = ()
    """Globs of case files in which ``${name}`` is replaced."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Name → text that takes its place."""


@dataclass(frozen=True)
class Success:
    """What makes a solver's end a success; all that are given must hold."""

    exit: tuple[int, ...] = (0,)
    log_pattern: str = ""
    """Regular expression that must be found in ``solver.log``."""
    file: str = ""
    """Path in the case that must exist."""


@dataclass(frozen=True)
class SolverSettings:
    cores: int = 0
    """Ranks for ``{cores}``; 0: auto."""
    directory: str = "auto"
    time_limit_s: float | None = None
    grace_s: float | None = None
    """Seconds between asking the ranks to stop and killing them; None: auto."""
    stop_file: str = ""
    stall_s: float | None = None
    """Seconds without output and file change that count as a stall."""
    stall_action: str = "report"
    """report | stop."""
    echo: str = "all"
    """all | tail | none: of the solver's output to standard output."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    pass_env: tuple[str, ...] = ()
    success: Success = Success()


@dataclass(frozen=True)
class PublishSettings:
    what: str = "changed"
    """changed | all."""
    include: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    overwrite: bool = False
    while_running: bool = True
    settle_s: float = 10.0
    """Seconds between the two looks at which a file must be the same."""
    live: tuple[str, ...] = ()
    """Globs of growing files whose end is shown every minute; ``solver.log`` always is."""
    priority: tuple[str, ...] = ()
    """Globs, first to last; before the order of ``steps.worth``."""
    compress: tuple[str, ...] = ()
    """Globs of files that are stored as zstd, their name + ".zst"."""
    bundle: tuple[str, ...] = ()
    """Globs of small files that travel together, as .tar.zst with an index."""
    cores_while_running: float = 1.0
    """Processor seconds a second that publishing may take beside the solver."""
    delete_behind: bool = False


@dataclass(frozen=True)
class PurgeSettings:
    when: str = "acknowledged"
    """acknowledged | always | never."""
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class SpotSettings:
    watch: str = "auto"
    """auto | aws | azure | gcp | off: whose notices of pre-emption are asked for."""


@dataclass(frozen=True)
class Plot:
    """Columns of one of the solver's tables that are to be drawn; columns count from 1."""

    file: str
    """A glob of the case."""
    x: int
    ys: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.file}:{self.x}:{','.join(map(str, self.ys))}"


@dataclass(frozen=True)
class Figure:
    """A number that a run comes to: a table's column in its last line, or the last match in the log."""

    text: str
    """As the job file has it; its name."""
    file: str = ""
    """A glob of the case; "" if *text* is a regular expression."""
    column: int = 0

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class ReportSettings:
    plot: tuple[Plot, ...] = ()
    result: tuple[Figure, ...] = ()
    price_core_hour: float = 0.0
    price_gb: float = 0.0
    openmetrics: str = ""
    """Path of the file that samples are written to, relative to the run directory; "": nowhere."""


@dataclass(frozen=True)
class ResumeSettings:
    files: tuple[str, ...] = ()
    """Globs; of each, the newest whole file of an interrupted attempt is in the case before the solver starts."""
    command: tuple[str, ...] = ()
    """Instead of ``Job.command``, if there was such a file."""


@dataclass(frozen=True)
class StoreSettings:
    endpoint_url: str = ""
    region: str = ""
    profile: str = ""
    role_arn: str = ""
    external_id: str = ""
    session_name: str = ""
    instance_role: bool = False
    addressing: str = "auto"
    """auto | path | virtual."""
    sign_payload: str = "auto"
    """auto | always."""
    sse: str = ""
    """"" | AES256 | aws:kms."""
    kms_key_id: str = ""
    expected_bucket_owner: str = ""
    request_payer: bool = False
    part_bytes: int = 0
    """Size of an uploaded part in bytes; 0: auto."""
    connections: int = 0
    """Requests in flight at once; 0: auto."""
    max_bandwidth_bytes_per_s: float = 0.0
    """0: no limit."""
    first_contact_s: float = 60.0
    patience_s: float = 900.0
    lease_s: float = 180.0
    ca_bundle: str = ""


@dataclass(frozen=True)
class Job:
    """What is asked of one run. ``settle`` made it: every value typed, within limits, free of contradictions."""

    input: tuple[S3Url, ...]
    output: S3Url
    """A prefix; its key ends in "/"."""
    command: tuple[str, ...]
    scratch: str = "case"
    """"outside", an absolute path, or a path relative to the run directory."""
    deadline_s: float | None = None
    """Seconds from our start until all is over, publishing included."""
    again: bool = False
    row: int = 0
    """Of the table, from 1; 0: the run is not a row of one."""
    fetch: FetchSettings = FetchSettings()
    template: TemplateSettings = TemplateSettings()
    solver: SolverSettings = SolverSettings()
    publish: PublishSettings = PublishSettings()
    purge: PurgeSettings = PurgeSettings()
    resume: ResumeSettings = ResumeSettings()
    spot: SpotSettings = SpotSettings()
    report: ReportSettings = ReportSettings()
    store: StoreSettings = StoreSettings()


@dataclass(frozen=True)
class Place:
    """Where we were started, with what. Made once, at the edge."""

    run_directory: Path
    """Absolute; the working directory at the start, or a row's directory below it."""
    environ: Mapping[str, str] = field(repr=False)
    """The environment we were started with, before anything was set aside."""
    shipped_file: Path | None = None
    """The one file that is running; None when installed as a package."""
    unpacked: Path | None = None
    """The private directory the shipped file unpacked itself into."""
    start_directory: Path | None = None
    """Of a row: the working directory at the start, which all rows share; ``config`` may lie there. None: not a row."""
    library_path: str = ""
    """LD_LIBRARY_PATH that the running interpreter itself was started with: the supervising process needs the same."""
    volume: int = 0
    """How much is said: -1 quiet, 0, 1 verbose."""

    @property
    def on_platform(self) -> bool:
        return bool(self.environ.get("RESCALE_JOB_ID") or self.environ.get("RESCALE_CLUSTER_ID"))


# ---------------------------------------------------------------- what happened


@dataclass(frozen=True)
class Attempt:
    """One try at a run, which holds the claim on the output prefix."""

    run_id: str
    """32 hexadecimal digits, new for each attempt."""
    number: int
    """Counts from 1 over all attempts that the bucket knows of."""
    started_at: float
    """Seconds since 1970 UTC, by the store's clock."""


@dataclass(frozen=True)
class Case:
    """The directory that the input is unpacked into and the solver runs in."""

    directory: Path
    log: Path
    """``solver.log``, outside the case."""


@dataclass(frozen=True)
class Fetched:
    """One input, whole in the case."""

    url: S3Url
    etag: str
    version_id: str
    is_archive: bool
    members: int
    bytes_in: int
    """Bytes of the object."""
    bytes_out: int
    """Bytes of the files it became."""
    seconds: float
    warnings: tuple[str, ...] = ()
    kept: int = 0
    """Of *members*: those that a killed attempt left here and that proved right, so that nobody fetched them again."""
    kept_bytes: int = 0
    """Of *bytes_out*."""


@dataclass(frozen=True)
class Solved:
    """How the command ended. A failure is a result, not an exception."""

    exit_code: int | None
    """The launcher's own; None if a signal ended it or it never ran."""
    signal: int | None
    """Only if the launcher itself died of it."""
    stopped_by: str
    """"" if it ended by itself, else why we stopped it: "SIGTERM", "time limit 2h", "deadline", …"""
    cause: str
    """One line for people: which rank, which signal, out of memory; "" on success."""
    succeeded: bool
    """Exit code, log pattern and file as ``solver.success`` asks."""
    seconds: float
    peak_memory_bytes: int
    """Largest sum over the run's processes that was seen (PSS where readable)."""
    cores: int
    started_at: float
    notes: tuple[str, ...] = ()
    """What else the user should know, one line each: who outlived the command, what the log lacks."""
    shared_memory: tuple[str, ...] = ()
    """Paths below /dev/shm that the run's processes had mapped; what is left of them is ours to remove."""
    stop_file: str = ""
    """Path in the case of the stop file that we made and the solver did not remove: it is no output, and has to go."""

    @property
    def code(self) -> int:
        """The launcher's number, 128 + signal, 1 when exit 0 misses ``success``; 0 if it succeeded or we stopped it."""
        if self.succeeded or self.stopped_by:
            return 0
        if self.signal is not None:
            return 128 + self.signal
        return self.exit_code or 1


class Identity(NamedTuple):
    """What tells one state of a file from another. A file is unchanged if all four are equal."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    def unless(self, known: Identity) -> Identity:
        """*known* itself if it is the same, so that one of them is kept for each of perhaps 100,000 files."""
        return known if known == self else self


@dataclass(frozen=True)
class Output:
    """A file that is to be published."""

    path: str
    """Relative to *root*."""
    key_path: str
    """Below the output prefix: *path*, or ``_byos/rundir/`` + path; bytes that are not UTF-8 percent-encoded."""
    identity: Identity
    root: Path
    link_to: str = ""
    """The target inside the case, if *path* is a link to a file."""
    escaped: bool = False
    """The name was not UTF-8 and *key_path* holds it percent-encoded."""
    stored: str = ""
    """"" as it is | "zstd" compressed, *key_path* ending in ".zst" | "bundle" in an object with others."""
    told: str = ""
    """The path that the manifest gives it, if not its own: it was written again after that one was removed behind."""


class Packed(NamedTuple):
    """What a file was, whose object holds it compressed; or, of a bundle's member, where in the object it is."""

    size_bytes: int
    crc32: str
    """Of the file's content, as that of an object is written."""
    object_bytes: int = 0
    """Of a bundle, whole; 0: not in a bundle."""
    object_crc32: str = ""
    offset: int = 0
    """In the bundle, of the zstd frame that holds the file."""
    length: int = 0
    """Of that frame."""
    skip_bytes: int = 0
    """Of the frame's content before the file's: its tar header."""


@dataclass(frozen=True)
class Published:
    """An output that the store has acknowledged."""

    output: Output
    key: str
    size_bytes: int
    crc32: str
    """Of the whole object, base64 of 4 big-endian bytes, as S3 writes it; of a bundle's member, of the file."""
    etag: str
    identity: Identity
    """What the file was when these bytes were read."""
    seconds: float
    packed: Packed | None = None
    """None: the object is the file, byte by byte."""

    @property
    def object_bytes(self) -> int:
        """Size of the object *key*."""
        return (self.packed.object_bytes if self.packed else 0) or self.size_bytes


@dataclass(frozen=True)
class Unpublished:
    """An output that should be in the bucket and is not: exit 74."""

    path: str
    reason: str


@dataclass(frozen=True)
class Skipped:
    """Something in the case that is never an output: a FIFO, a socket, a device, a broken link."""

    path: str
    reason: str


@dataclass(frozen=True)
class Left:
    """Something that the purge left, and why."""

    path: str
    reason: str
    expected: bool
    """Left on purpose (keep, the platform's log, not ours); else it makes the purge incomplete: 76."""


@dataclass(frozen=True)
class Purged:
    files: int
    directories: int
    size_bytes: int
    left: tuple[Left, ...]
    paths: tuple[str, ...] = ()
    """The first thousand files that went."""
    lost: tuple[str, ...] = ()
    """What went although the bucket had not acknowledged it: ``purge.when = "always"``."""
    journal_stays: bool = False
    """Outputs are still here that the bucket lacks, so the next start needs ``.byos/``, the job file and the program."""

    @property
    def complete(self) -> bool:
        return all(item.expected for item in self.left)


@dataclass(frozen=True)
class Phase:
    """One step of a run as it is told at the end."""

    name: str
    started_at: float
    seconds: float
    size_bytes: int = 0
    files: int = 0


# ---------------------------------------------------------------- what crosses rooms


class Stop(Protocol):
    """The wish to stop, with its reason; ``node.stop.Stop`` is the one there is."""

    @property
    def asked(self) -> bool:
        """Somebody wants the run to end: finish what is under way, start nothing new."""

    @property
    def cut(self) -> bool:
        """A second signal, or no time left: end at once."""

    @property
    def reason(self) -> str: ...

    @property
    def seconds_left(self) -> float | None:
        """Seconds until everything is cut short, if that is known."""

    def wait(self, seconds: float, *, also: int = -1) -> bool:
        """Wait *seconds*, or until the wish grows stronger than it was at the call; True if it did.

        Ends as well, with False, when the descriptor *also* has something to read.
        """

    def check(self) -> None:
        """Raise Stopped if asked."""

    def heard_at_once(self) -> AbstractContextManager[None]:
        """Around what looks at no wish, as a library that waits: a signal breaks it off with Stopped."""


class Pool(Protocol):
    """Threads, bounded; ``node.pool.Pool`` is the one there is."""

    @property
    def width(self) -> int: ...

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]: ...

    def each(self, function: Callable[[S], T], items: Iterable[S]) -> Iterator[T]: ...


class Tally(Protocol):
    """Counts what has moved, for progress; may be called from any thread."""

    def add(self, *, bytes_in: int = 0, bytes_out: int = 0, files: int = 0, saved_bytes: int = 0) -> None: ...


class ByteSource(Protocol):
    """One version of one object, readable at any place from any thread; ``bucket.ranges`` makes it."""

    @property
    def url(self) -> S3Url: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def etag(self) -> str: ...

    @property
    def version_id(self) -> str: ...

    def read(self, start: int, length: int) -> memoryview:
        """Exactly *length* bytes from *start*: never fewer, never of another version. Blocks; retries inside.

        The buffer belongs to the caller until he hands it back by :meth:`release`, after which it is used again.
        Raises BadInput if the object was replaced or is shorter, StoreUnreachable, AccessRefused, Stopped.
        """

    def release(self, buffer: memoryview) -> None:
        """Give back a buffer that :meth:`read` returned. Optional: any other is garbage collected."""

"""What can end a run, one class per decision that a caller can take.

ByosError
├── UsageError            64  command line or job file wrong
├── BadInput              65  input damaged, hostile, unsupported, or changed twice while being read
│   └── InputChanged          … it was replaced while being read: once is tried again
├── MissingInput          66  input does not exist, or a prefix is empty
├── StoreUnreachable      69  store not reachable, nothing solved yet
├── NodeUnfit             71  disk or inodes full, no such command, several nodes
├── PrefixInUse           73  another live run holds the output prefix
├── Unpublished           74  some outputs could not be published
├── Stopped               75  signal, deadline, pre-emption
├── PurgeIncomplete       76  something that should be gone is still there
├── AccessRefused         77  credentials or permission refused
└── StoreAnswer               the store answered, and its caller decides
    ├── NoSuchObject          404
    ├── ConditionFailed       412, 409: If-Match or If-None-Match did not hold
    └── StoreRefused          any other definite refusal

A message is lower-case, quotes values and has no full stop; the hint, a line of its own, says what to do.
Whatever is none of these is a defect: exit code 70, traceback in ``run.log``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

EXIT_CODES: dict[int, str] = {
    0: "outputs whole in the bucket, run directory purged as asked",
    64: "command line or job file wrong (all problems listed)",
    65: "input is damaged, hostile or of an unsupported kind; or it changed twice while being read",
    66: "input does not exist, or a prefix is empty",
    69: "store not reachable, nothing solved yet",
    70: "a defect of byos-run itself (traceback in run.log)",
    71: "this node: disk or inodes full, no such command, no fitting Python",
    73: "output prefix is in use by another live run",
    74: "some outputs could not be published; the next start only publishes, records, purges",
    75: "stopped by a signal, a deadline or pre-emption; resumable",
    76: "purge incomplete: something that should be gone is still there, listed",
    77: "store refused the credentials or the permission (the missing action is named)",
}
"""Exit code → meaning, besides the solver's own codes, which are passed on as they are."""


class ByosError(Exception):
    """Something that ends the run, said for the user."""

    code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ByosError):
    """Every problem of the command line, the job file, the table or the environment, found before anything moved."""

    code = 64

    def __init__(self, problems: Sequence[str], *, hint: str = "") -> None:
        super().__init__("; ".join(problems), hint=hint)
        self.problems = tuple(problems)


class BadInput(ByosError):
    code = 65


class InputChanged(BadInput):
    """The object was replaced while it was being read; a caller starts once more on the new version."""


class MissingInput(ByosError):
    code = 66


class StoreUnreachable(ByosError):
    code = 69


class NodeUnfit(ByosError):
    code = 71


class PrefixInUse(ByosError):
    code = 73


class Unpublished(ByosError):
    code = 74


class Stopped(ByosError):
    code = 75


class PurgeIncomplete(ByosError):
    code = 76


class AccessRefused(ByosError):
    code = 77

    def __init__(self, message: str, *, hint: str = "", status: int = 403, error_code: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.error_code = error_code


class StoreAnswer(ByosError):
    """A definite answer of the store that is not success. Seen by a user only if a caller let it through."""

    def __init__(self, message: str, *, status: int, error_code: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.error_code = error_code


class NoSuchObject(StoreAnswer):
    code = 66


class ConditionFailed(StoreAnswer):
    code = 73


class StoreRefused(StoreAnswer):
    code = 77


def line_of(error: BaseException) -> str:
    """One line for people: the message of *error*, without control characters."""
    return printable(getattr(error, "message", None) or str(error) or type(error).__name__)


def printable(text: str) -> str:
    """*text* with control characters and undecodable bytes escaped: no terminal or log is steered by it."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode("ascii") for c in text
    )

"""The words of a command that is no run: places, its own flags, and flags of keys, which ``settle`` reads.

A flag's value is the next word, or follows a "=". Places and flags may stand in any order.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from byos_run.errors import UsageError, printable
from byos_run.steps.keys import KEYS


@dataclass
class Words:
    """The words of a command line, sorted."""

    places: list[str] = field(default_factory=list)
    switches: set[str] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    """Flags of keys with their values, as they were given."""


def sort_words(
    words: Sequence[str], *, command: str, switches: Collection[str] = (), values: Collection[str] = ()
) -> Words:
    """*switches* and *values* are the command's own flags without and with a value. Raises UsageError."""
    found, problems = Words(), []
    key_switches = {key.flag for key in KEYS if key.kind.shape == "switch"}
    waiting = list(reversed(words))
    while waiting:
        word = waiting.pop()
        flag, equals, value = word.partition("=")
        if not flag.startswith("-"):
            found.places.append(word)
        elif word in switches:
            found.switches.add(word)
        elif flag in values:
            if not equals and (not waiting or waiting[-1].startswith("--")):
                problems.append(f"{flag}: its value is missing")
            else:
                found.values[flag] = value if equals else waiting.pop()
        elif flag in switches:
            problems.append(f"{flag}: it takes no value")
        elif not flag.startswith("--"):
            problems.append(f'unknown flag "{printable(flag)}"')
        else:
            found.keys.append(word)
            if not equals and flag not in key_switches and waiting and not waiting[-1].startswith("--"):
                found.keys.append(waiting.pop())
    if problems:
        raise UsageError(problems, hint=f"byos-run {command} --help")
    return found

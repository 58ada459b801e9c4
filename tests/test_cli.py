"""The edge: what is answered before any command is imported."""

from __future__ import annotations

import re

import pytest

from byos_run import cli

COMMANDS = re.findall(r"^  (\w+) ", cli.USAGE, re.MULTILINE)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]], ids=str)
def test_help_names_every_command(capsys, words):
    """The first screen: every command, at most 80 columns wide."""
    assert 0 == cli.main(words)
    told = capsys.readouterr().out
    assert set(COMMANDS) == set(cli._COMMANDS)
    assert all(len(line) <= 80 for line in told.splitlines())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_ends_with_exit_codes(capsys, command):
    """`byos-run COMMAND --help`: usage first, exit codes last, 80 columns."""
    assert 0 == cli.main([command, "--help"])
    told = capsys.readouterr().out
    assert told.startswith("usage: byos-run")
    assert re.search(r"exit codes:\n(  .*\n)+\Z", told)
    assert all(len(line) <= 80 for line in told.splitlines())


def test_an_unknown_command_is_refused_with_those_there_are(capsys):
    """64, without running anything."""
    assert 64 == cli.main(["verfiy"])
    assert "unknown command 'verfiy': there is run, " in capsys.readouterr().err

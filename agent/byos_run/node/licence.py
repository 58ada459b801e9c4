"""Licence servers that the solver will ask, as the environment names them: does one accept a connection.

FlexNet and RLM read ``port@host``, several joined by ":" (";" in some shells); a path of a file is passed over. Not
promised: that it has a licence left, or that the vendor's second port is open.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping

_WITHIN_S = 2.0
_SERVER = re.compile(r"(\d{1,5})@([A-Za-z0-9][A-Za-z0-9._-]*)")


def servers(environ: Mapping[str, str]) -> dict[str, list[tuple[str, int]]]:
    """Variable → (host, port) of each server that it names."""
    names = sorted(name for name in environ if name in ("RLM_LICENSE", "LM_LICENSE_FILE") or name.endswith("_LICENSE"))
    found = {
        name: [(host, int(port)) for port, host in _SERVER.findall(environ[name]) if 0 < int(port) < 65536]
        for name in names
    }
    return {name: those for name, those in found.items() if those}


def answers(server: tuple[str, int]) -> str:
    """ "" if it accepts a connection within 2 s; else why not."""
    try:
        socket.create_connection(server, timeout=_WITHIN_S).close()
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    return ""

"""Is the licence server in reach? One TCP connection to each host that the solver's environment names.

``RLM_LICENSE`` and ``LM_LICENSE_FILE`` hold ``port@host``, several with ":" or ";" between; paths of licence files are passed over.
Not asked: whether the server has a licence to give.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping

_TIMEOUT_S = 1.5
_PLACE = re.compile(r"(\d{1,5})@([A-Za-z0-9.-]+)")


def servers(environ: Mapping[str, str]) -> list[tuple[str, int]]:
    """Host and port of each licence server, in the order in which they are named."""
    named = [environ.get(name, "") for name in ("RLM_LICENSE", "LM_LICENSE_FILE")]
    found = [(host, int(port)) for text in named for port, host in _PLACE.findall(text) if int(port) < 1 << 16]
    return list(dict.fromkeys(found))


def answers(host: str, port: int) -> str:
    """ "" if something listens there, else why it cannot be reached."""
    try:
        socket.create_connection((host, port), timeout=_TIMEOUT_S).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""

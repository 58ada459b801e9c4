"""The newest sample as OpenMetrics text, for the directory that a node exporter collects.

A reader sees a whole file or none: it is written beside its place and moved there. Slots of a node may share a directory: a path
that is one gets ``byos-run-<run id>.prom``. No time stamps: the collector refuses them.
"""

from __future__ import annotations

import os
from pathlib import Path

from byos_run.node.meter import Sample

_METRICS = (
    ("ranks_processes", "gauge", "", "Processes of the run", "ranks"),
    ("ranks_cpu_seconds", "counter", "seconds", "Processor time of the run's processes", "ranks_cpu_s"),
    ("ranks_memory_bytes", "gauge", "bytes", "Memory of the run's processes, shared pages by their share", "ranks_memory_bytes"),
    ("node_cpu_seconds", "counter", "seconds", "Processor time of the whole node", "node_cpu_s"),
    ("node_memory_bytes", "gauge", "bytes", "Memory in use on the node", "node_memory_bytes"),
    ("agent_cpu_seconds", "counter", "seconds", "Processor time of byos-run itself", "agent_cpu_s"),
    ("disk_used_bytes", "gauge", "bytes", "Of the case's file system", "disk_used_bytes"),
    ("disk_free_bytes", "gauge", "bytes", "Of the case's file system", "disk_free_bytes"),
    ("fetched_bytes", "counter", "bytes", "Bytes fetched from the bucket", "bytes_in"),
    ("acknowledged_bytes", "counter", "bytes", "Bytes that the bucket has acknowledged", "bytes_out"),
)  # fmt: skip


def place_of(path: str, *, run_directory: Path, run_id: str) -> Path | None:
    """The file that *path*, as the job file has it, means; None for ""."""
    if not path:
        return None
    whole = run_directory / path
    return whole / f"byos-run-{run_id}.prom" if path.endswith("/") or whole.is_dir() else whole


def text_of(sample: Sample, *, run_id: str, output: str) -> str:
    labels = f'{{run_id="{run_id}",output="{_escaped(output)}"}}'
    lines = []
    for name, kind, unit, what, field in _METRICS:
        family = f"byos_run_{name}"
        lines += [f"# TYPE {family} {kind}", *([f"# UNIT {family} {unit}"] if unit else []), f"# HELP {family} {what}."]
        lines.append(f"{family}{'_total' if kind == 'counter' else ''}{labels} {getattr(sample, field):.10g}")
    lines += ["# TYPE byos_run_phase info", "# HELP byos_run_phase What the run is doing."]
    lines.append(f'byos_run_phase_info{labels[:-1]},phase="{_escaped(sample.phase)}"}} 1')
    return "\n".join([*lines, "# EOF", ""])


def write(path: Path, text: str) -> None:
    """Raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    with os.fdopen(
        os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644), "w"
    ) as file:
        file.write(text)
    os.replace(beside, path)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

"""Hostile bytes, no network: what is in an archive, whether it may be unpacked, and the writing below one directory."""

from byos_run.archive.kinds import kind_of
from byos_run.archive.plan import Limits, Plan, merge_check, plan_file, safe_path
from byos_run.archive.unpack import Unpacked, plan_of, unpack_into

__all__ = ["Limits", "Plan", "Unpacked", "kind_of", "merge_check", "plan_file", "plan_of", "safe_path", "unpack_into"]

"""Hostile bytes, no network: what is in an archive, whether it may be unpacked, and the writing below one directory."""

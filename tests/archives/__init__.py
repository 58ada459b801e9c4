"""Hostile and odd archives, made here, and what is needed to unpack them as a fetch does."""

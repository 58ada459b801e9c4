"""A proxy in front of a real store that misbehaves as told: rules (what and when), message (HTTP), proxy (the server)."""

"""What stands around a run: each command is one file."""

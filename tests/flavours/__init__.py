"""The shipped file with every MPI that can be had: `python -m tests.flavours`."""

"""byos-run: one solver run on a rented node, with storage of your own."""

__version__ = "0.1.0"

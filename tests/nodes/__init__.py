"""The matrix of nodes: every Python that can be had here, every broken surrounding, and what a start left: `make test-nodes`."""

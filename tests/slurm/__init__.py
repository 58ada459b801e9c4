"""byos-run under a real Slurm: `make test-slurm`."""

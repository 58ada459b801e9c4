"""This machine, no jobs: processes, cores, files, threads, deletion."""

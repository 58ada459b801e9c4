"""The door: ``python -m byos_run``."""

from byos_run.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

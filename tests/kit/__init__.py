"""What the tests stand on: the dev cache (cache), real stores (stores), real cases (cases), runs of the file (runs)."""

# Prints every byte there is, a thousand times, and no newline at the end.
import sys

sys.stdout.buffer.write(bytes(range(256)) * 1000 + b"last")

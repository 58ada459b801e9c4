# Prints as many lines as it is told, as fast as it can; the last one is "line N".
import sys

count, batch = int(sys.argv[1]), 10_000
for start in range(0, count, batch):
    sys.stdout.write("".join(f"line {number}\n" for number in range(start + 1, min(start + batch, count) + 1)))

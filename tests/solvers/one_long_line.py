# Prints as many MiB as it is told without a newline, then a line that is short.
import sys

for _ in range(int(sys.argv[1])):
    sys.stdout.write("x" * (1 << 20))
sys.stdout.write("\nthe end\n")

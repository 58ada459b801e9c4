# Says "ready" and computes; asked by TERM it writes its results and ends with 0.
import signal
import sys
import time


def finish(*_):
    with open("results.dat", "w") as file:
        file.write("results\n")
    sys.exit(0)


signal.signal(signal.SIGTERM, finish)
print("ready", flush=True)
while True:
    time.sleep(60)

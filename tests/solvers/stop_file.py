# Heeds a stop file as CONVERGE 3 does: writes a restart file, removes the stop file, goes on. TERM ends it well.
import os
import signal
import sys
import time

signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by TERM"))
print("ready", flush=True)
while True:
    if os.path.exists(sys.argv[1]):
        with open("restart.dat", "w") as file:
            file.write("state\n")
        os.remove(sys.argv[1])
        print("restart written", flush=True)
    time.sleep(0.01)

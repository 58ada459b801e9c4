# Starts four ranks as hydra does, each in a session of its own; every rank says "ready" and ignores TERM.
import os
import signal
import time

for _ in range(4):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready", flush=True)
        time.sleep(600)
        os._exit(0)
while True:
    os.wait()

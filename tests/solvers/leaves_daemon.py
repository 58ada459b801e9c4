# Ends well, but leaves a daemon behind that keeps our output open and has forgotten its environment and its session.
import os
import sys

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sleep", ["sleep", sys.argv[1]], {})
    os._exit(0)
os.wait()
print("daemon started", flush=True)

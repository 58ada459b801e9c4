# Prints its environment as a JSON object, and its working directory.
import json
import os

print(json.dumps({**os.environ, "cwd": os.getcwd()}))

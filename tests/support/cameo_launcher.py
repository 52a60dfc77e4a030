"""What a CAMEO server does with its proxy programs: starts them with pipes, never reads or writes these.

Run as a program, with a command line a line on standard input, JSON lists: it starts them all, prints their
process ids, and then waits to be killed.
"""

import json
import subprocess
import sys
import time

if __name__ == "__main__":
    children = [
        subprocess.Popen(
            json.loads(line), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for line in sys.stdin
    ]
    print(*(child.pid for child in children), flush=True)
    time.sleep(600)

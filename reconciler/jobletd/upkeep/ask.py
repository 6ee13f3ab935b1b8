#!/usr/bin/python3 -I
"""In a job's sandbox: asks the daemon for a backup, a rotation or a report, prints what it answers, ends with its status.

    /run/joblet/upkeep/ask backup --keep 14

Exit status: that of what was asked for; 75: the daemon is away or busy, ask again later; 77: it may not be asked for that.
Copied into the sandbox as it stands here: it imports nothing of ours.
"""

import json
import os
import socket
import sys

AGAIN = 75  # EX_TEMPFAIL


def main() -> int:
    directory = os.path.dirname(os.path.abspath(__file__))
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(f"{directory}/socket")
            connection.sendall(json.dumps(sys.argv[1:]).encode() + b"\n")
            answer = json.loads(connection.makefile("rb").readline())
        except (OSError, ValueError) as error:
            print(f"ask: the daemon does not answer: {error}", file=sys.stderr)
            return AGAIN
    status = int(answer["exit"])
    (sys.stdout if status == 0 else sys.stderr).write(str(answer["output"]))
    return status


if __name__ == "__main__":
    sys.exit(main())

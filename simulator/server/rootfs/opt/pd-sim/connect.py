"""connect.py ADDRESS PORT…: holds connections that leave from these ports, until it is killed.

Both ends of each are of this program; the other one has a port that nobody plans. First an empty line,
when they stand.
"""

import signal
import socket
import sys

other = socket.create_server(("127.0.0.1", 0))
ends = [
    socket.create_connection(other.getsockname(), source_address=("127.0.0.1", int(port)))
    for port in sys.argv[2:]
]
print(flush=True)
signal.pause()

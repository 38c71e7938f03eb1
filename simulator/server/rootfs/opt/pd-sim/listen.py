"""listen.py ADDRESS PORT…: listens on ports until it is killed, and answers nobody. First an empty line."""

import signal
import socket
import sys

listeners = [socket.create_server((sys.argv[1], int(port))) for port in sys.argv[2:]]
print(flush=True)
signal.pause()

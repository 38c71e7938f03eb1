# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Print the network interface that holds an IPv4 address: find_nic.py ADDRESS. A part of launch scripts: the
image in which it runs may lack iproute2."""

import array
import fcntl
import socket
import struct
import sys

SIOCGIFCONF = 0x8912
# One struct ifreq on 64-bit Linux: the name in 16 bytes, then the address behind family and port.
ROW = 40


def interface(address: str) -> str:
    """The name of the interface with this address, without the number of an alias; exits if there is none."""
    table = array.array("B", bytes(65536))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = struct.pack("iL", len(table), table.buffer_info()[0])
        size = struct.unpack("iL", fcntl.ioctl(s, SIOCGIFCONF, request))[0]
    for start in range(0, size, ROW):
        row = table[start : start + ROW].tobytes()
        if socket.inet_ntoa(row[20:24]) == address:
            return row[:16].split(b"\0")[0].decode().split(":")[0]
    sys.exit(f"no network interface of this server has the address {address}")


if __name__ == "__main__":
    print(interface(sys.argv[1]))

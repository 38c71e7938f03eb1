"""What can be wrong on the disk, in the network or with the access of a simulated server."""

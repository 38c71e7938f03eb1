"""Servers that look like Atlas A3 servers, made of containers: images, networks, servers, faults."""

"""Packages of the operating system: a server has those that the inventory names, and can have others."""

from __future__ import annotations

testinfra_hosts = ["docker2"]

APT = "DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet"


def test_a_package_that_the_inventory_names_is_there_as_debian_leaves_it(host):
    haproxy = host.service("haproxy")
    assert haproxy.is_running, host.run("journalctl --unit haproxy --no-pager --lines 20").stdout
    assert haproxy.is_enabled
    assert host.run("dpkg --verify haproxy | grep /etc/").stdout == ""


def test_other_packages_can_be_installed(host):
    assert not host.package("keepalived").is_installed
    host.check_output(f"apt-get update --quiet && {APT} install --no-install-recommends keepalived")
    # Debian's unit starts when there is a configuration.
    assert host.service("keepalived").is_enabled
    host.check_output(f"{APT} purge --auto-remove keepalived")

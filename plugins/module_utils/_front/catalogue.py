# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Failures of the front; the source of docs/failures.md."""

from __future__ import annotations

from .._findings import ERROR, WARNING, Catalogue, Check

FRONT_CHECKS = Catalogue(
    Check(
        "front-config-refused",
        "HAProxy refuses the front's configuration",
        "Its version may lack what the configuration needs, or a file of it is damaged. The front that runs "
        "goes on with what it has.",
        ERROR,
        "a configuration that haproxy -c accepts",
        "haproxy -v  # on this server: 2.6 or later; the lines seen name what is refused",
        "haproxy -c",
    ),
    Check(
        "front-address-refused",
        "keepalived refuses the configuration of the fronts' shared address",
        "The address would not move to a front that serves. What runs goes on with what it has.",
        ERROR,
        "a configuration that keepalived --config-test accepts",
        "keepalived --version  # on this server: 2.2.7 works; the lines seen name what is refused",
        "keepalived --config-test",
    ),
    Check(
        "front-not-started",
        "The front does not start",
        "Another process may have its port, or HAProxy may not be allowed to open it.",
        ERROR,
        "an active unit",
        "journalctl -u {unit} -n 30  # on this server",
        "systemd and the unit's journal",
    ),
    Check(
        "front-not-reloaded",
        "The front did not take its new configuration",
        "It goes on with the one before.",
        ERROR,
        "a new worker of HAProxy",
        "journalctl -u {unit} -n 30  # on this server; then run again",
        "HAProxy's master process (show proc)",
    ),
    Check(
        "front-silent",
        "The front's own socket does not answer",
        "Its state cannot be read or changed. Its unit may just be restarting.",
        ERROR,
        "an answer",
        "systemctl status {unit}  # on this server; then run again",
        "HAProxy's sockets",
    ),
    Check(
        "front-router-unseen",
        "The front does not see the new router",
        "It gets no requests before the front's own check of it has succeeded. The router before it goes on.",
        ERROR,
        "a router that the front's check finds up",
        "journalctl -u {unit} -n 30  # on this server: what the check says; then run again",
        "HAProxy's check of the router",
    ),
    Check(
        "front-router-port-held",
        "A new router needs a port of the one that serves",
        "Both run at the same time until the requests are switched. No router was changed.",
        ERROR,
        "pd_proxy_port and the next port not in use, likewise pd_router_metrics_port",
        "choose a pd_proxy_port two or more away from the present one; or run stop.yml first",
        "this collection, docs/front.md",
    ),
    Check(
        "front-unit-foreign",
        "There is another service of the front's name",
        "It was not written by this collection, which replaces nothing of others.",
        ERROR,
        "no unit of that name, or one of this collection",
        "choose another pd_deployment, or remove {path}",
        "this collection, plugins/module_utils/_front",
    ),
    Check(
        "front-drain-late",
        "Requests were still running through a router when its time was up",
        "They were cut: the router was replaced, and could finish its requests for pd_drain_timeout seconds.",
        WARNING,
        "no request left",
        "raise pd_drain_timeout if answers may take longer",
        "HAProxy's sessions",
    ),
)

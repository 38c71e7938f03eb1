# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What keeps a change from beginning, or from going on; the source of docs/failures.md."""

from __future__ import annotations

from ...module_utils._findings import ERROR, Catalogue, Check

_HERE = "this collection, docs/operation.md"

CHANGE_CHECKS = Catalogue(
    Check(
        "change-outage",
        "The change interrupts the service",
        "Clients get no answers while engines load. A first deployment, and the repair of what is down, need"
        " no consent.",
        ERROR,
        "a change of what serves without an outage, or consent to it",
        "add -e deploy_accept_outage=true, at a time when nobody needs the service",
        _HERE,
    ),
    Check(
        "change-unknown",
        "There is no such instance or server in the deployment",
        "Nothing is changed on a misspelt name.",
        ERROR,
        "a name of the plan",
        "correct the name; ansible-playbook playbooks/plan.yml shows all of them",
        _HERE,
    ),
    Check(
        "change-other-version",
        "An instance that is to be restarted runs another version than the plan's",
        "It would start in the planned version, and be paired with others of the version before.",
        ERROR,
        "the planned release, image, model and profile",
        "ansible-playbook playbooks/deploy.yml  # changes all instances; or undo the change of the inventory",
        _HERE,
    ),
    Check(
        "change-stopped",
        "A change has stopped half-way",
        "The first failure ends it: what has not been changed yet goes on serving.",
        ERROR,
        "every step succeeds",
        "mend the failure above and run again: it goes on from here",
        _HERE,
    ),
)

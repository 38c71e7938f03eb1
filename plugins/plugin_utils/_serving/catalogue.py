# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What keeps a change from beginning, or from going on; the source of docs/failures.md."""

from __future__ import annotations

from ...module_utils._findings import ERROR, WARNING, Catalogue, Check

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
        "An instance would be started in the planned version beside others of the version before",
        "Two versions must not serve a request together, and this run changes that instance alone.",
        ERROR,
        "one release, image, model and profile for all that serves",
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
    Check(
        "change-revision-unknown",
        "There is no such revision",
        "A revision is kept of each deployment that passed its test; of these the last ten are there.",
        ERROR,
        "a revision that is listed",
        "ansible-playbook playbooks/history.yml  # lists them; then -e revision=NUMBER",
        _HERE,
    ),
    Check(
        "change-revision-servers",
        "A revision has servers that the inventory lacks",
        "Without them its instances cannot be started.",
        ERROR,
        "all servers of the revision in the inventory, by the same names",
        "add the servers to the groups prefiller, decoder or proxy; or choose another revision",
        _HERE,
    ),
    Check(
        "change-revision-format",
        "A revision was written by another version of this collection",
        "Its plan lacks what this version needs, or has what it does not know.",
        ERROR,
        "a plan of this version",
        "go back with the version of the collection that wrote it, or change the inventory and run"
        " playbooks/deploy.yml",
        _HERE,
    ),
    Check(
        "change-revision-key",
        "A revision needs an API key, and the inventory has none",
        "No revision holds the key of the engines. With an empty one they would answer everybody.",
        ERROR,
        "the engines' API key in the inventory",
        "set pd_api_key again; or choose another revision",
        _HERE,
    ),
    Check(
        "change-revision-image",
        "The image's name stands for another image than in the revision",
        "The name of an image can be given to another one. The engines would start from that.",
        WARNING,
        "the image with which the revision was deployed",
        "docker tag IMAGE_ID NAME  # on every server, with the ID that was expected; or use pd_image with a"
        " digest",
        _HERE,
    ),
)

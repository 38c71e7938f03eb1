# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What can end the transfer of weights or of an image: why, what is expected, its cure.

docs/failures.md is made from it. What has come of a transfer that ends stays on the server: the next run goes
on with it.
"""

from __future__ import annotations

from .._findings import ERROR, Catalogue, Check, RolloutError

WEIGHTS = "this collection, roles/model_weights/README.md"
IMAGE = "this collection, roles/docker/README.md"


class TransferError(RolloutError):
    """Weights or an image did not come to a server."""


def _weights(code: str, title: str, why: str, expected: str, cure: str) -> Check:
    return Check(code, title, why, ERROR, expected, cure, WEIGHTS)


def _image(code: str, title: str, why: str, expected: str, cure: str) -> Check:
    return Check(code, title, why, ERROR, expected, cure, IMAGE)


TRANSFER_CHECKS = Catalogue(
    # Who gives the weights to whom
    _weights(
        "weights-no-source",
        "No server has the weights, and nothing brings them",
        "pd_weights_source names no source outside of the servers, and none of them has complete weights.",
        "one server that has them, or a source outside",
        "pd_weights_source: modelscope  # or huggingface or controller, or copy them to one server",
    ),
    _weights(
        "weights-source-unnamed",
        "What to bring is not named",
        "A hub is asked for a model by its id, the controller for a directory.",
        "the id of the model on the hub, or the directory on the controller",
        "{variable}: …  # what to bring",
    ),
    _weights(
        "weights-seed-unknown",
        "The server that is to get the weights first is not in the play",
        "model_weights_seed names the server that gets them from outside; the others take them from it.",
        "a server of the play that has an engine",
        "model_weights_seed: …  # a server with an engine, which --limit does not exclude",
    ),
    _weights(
        "weights-differ",
        "Servers hold different weights",
        "Each is without errors, and they are not the same: which are meant cannot be known.",
        "the same weights on all servers",
        "mv {path} {path}.other  # where they are not wanted; then run again",
    ),
    # Copying
    _weights(
        "weights-rsync-missing",
        "There is no rsync",
        "Weights go from server to server with rsync.",
        "rsync 3.1 or later on every server",
        "dnf install rsync  # or apt-get install rsync",
    ),
    _weights(
        "weights-path-taken",
        "Something else came to the path of the weights",
        "Weights grow beside the path that they get in the end; what others put there is not replaced.",
        "nothing at that path until the weights are complete",
        "ls -la {path}  # see what it is, remove it, and run again",
    ),
    _weights(
        "weights-path-is-mount",
        "The path of the weights is a mount point or a link",
        "It gets the weights in one step, by a rename, which a mount point does not allow.",
        "a directory below the mount point",
        "pd_model_path: {path}/MODEL  # a directory below it",
    ),
    _weights(
        "weights-serving-failed",
        "A server cannot offer its weights to others",
        "rsync's daemon, which listens on the service address, has ended.",
        "a free port on the service address",
        "ss -ltnp  # end what listens on model_weights_port, or choose another port",
    ),
    _weights(
        "weights-source-unreadable",
        "Files of the weights cannot be read where they are taken from",
        "Permissions, root squashing on NFS, or a disk with read errors.",
        "files that root can read on the server that they are taken from, and that stay where they are",
        "dmesg | tail  # there: repair the disk, the mount or the permissions, then run again",
    ),
    _weights(
        "weights-source-lost",
        "No server gives the weights any longer",
        "All servers that have them have stopped answering, or refuse.",
        "a server with the weights that answers until all is copied",
        "look at that server and the network to it, then run again: the transfer resumes",
    ),
    _weights(
        "weights-changed",
        "The weights changed while they were copied",
        "Files are compared with what the source had at the beginning.",
        "weights that nobody changes while they are copied",
        "wait until they are complete at the source, then run again",
    ),
    _weights(
        "weights-disk-full",
        "The disk has no room for the weights",
        "What has come stays; the rest does not fit.",
        "space for what has not come yet",
        "df -h {path}  # free space, or mount a larger disk there; then run again: the transfer resumes",
    ),
    _weights(
        "weights-unwritable",
        "The weights cannot be written",
        "The file system is read-only, or root may not write to it.",
        "a directory in which root on this server can write",
        "findmnt -T {path}  # repair the mount or its permissions, then run again",
    ),
    _weights(
        "weights-download-failed",
        "The download from the hub failed",
        "The hub's own client ended with an error; its last lines stand below.",
        "a download that completes",
        "check the model's id, the token and the way to the hub (a proxy: model_weights_environment), then "
        "run again: the download resumes",
    ),
    _weights(
        "weights-transfer-gone",
        "The transfer of the weights stopped without a result",
        "The server rebooted, or the process was killed.",
        "a transfer that ends with a result",
        "journalctl -k | tail  # see what happened on the server, then run again: the transfer resumes",
    ),
    # The image: what the role is told
    _image(
        "image-digest-invalid",
        "docker_image_digest is no digest",
        "The image that comes is compared with it.",
        "sha256: and 64 hexadecimal digits, or nothing",
        "docker_image_digest: sha256:…",
    ),
    _image(
        "image-archive-unnamed",
        "No archive is named",
        "pd_image_source is archive.",
        "the path of a file made by docker save",
        "pd_image_archive: /path/to/image.tar",
    ),
    _image(
        "image-named-by-digest",
        "The image is named by its digest",
        "An archive does not keep the digest, so what is loaded from it could not be found under that name.",
        "a name with a tag",
        "pd_image: NAME:TAG  # and the digest as docker_image_digest; pd_image may have both",
    ),
    _image(
        "image-registry-unnamed",
        "The image's name has no registry",
        "Docker would complete it to its public registry, which is then asked.",
        "a registry in the image's name, or a mirror",
        "pd_image_registry: registry.example:5000  # or docker_registry_mirrors, pd_image_source: archive, "
        "or to allow it pd_image_source: pull and docker_image_allow_unqualified: true",
    ),
    _image(
        "image-absent",
        "The image is not on a server, and nothing brings it",
        "pd_image_source is none.",
        "the image on every server",
        "docker load --input FILE  # on {host}; or pd_image_source: registry, or archive",
    ),
    _image(
        "image-unexpected",
        "The image on a server is another one than expected",
        "docker_image_digest says which image is meant, and pd_image_source: none does not replace it.",
        "the image of docker_image_digest",
        "docker image rm {image}  # and load the right one; or pd_image_source: registry, or archive",
    ),
    _image(
        "image-archive-missing",
        "The archive of the image is not there",
        "pd_image_archive is looked for on the servers.",
        "the archive, made by docker save, on one server; on all where none takes from another",
        "ls -l {archive}  # copy it there (docker save -o FILE {image}), correct pd_image_archive, or copy "
        "it from the controller: docker_image_archive_remote_src: false",
    ),
    _image(
        "image-archive-unreadable",
        "The archive of the image cannot be read",
        "It is read on the controller, or on the server that has it.",
        "an archive made by docker save",
        "ls -l {archive}  # correct pd_image_archive, or say that it is on the servers: "
        "docker_image_archive_remote_src: true",
    ),
    # The image: on its way
    _image(
        "image-registry-down",
        "The registry does not answer",
        "It does not run, cannot be reached from the server, or broke off.",
        "a registry that answers",
        "check that the registry runs and that {host} reaches it, or name another (docker_registry_mirrors)",
    ),
    _image(
        "image-registry-login",
        "The registry wants a login",
        "It refuses the image without one, or with the one given.",
        "a user who may pull the image",
        "docker_registry_login: {REGISTRY: {username: …, password: …}}  # from a vault",
    ),
    _image(
        "image-registry-tls",
        "The registry's certificate is not trusted",
        "It is signed by a CA that the server does not know, is expired, or there is no TLS.",
        "a certificate of a known CA",
        "docker_registry_ca: …  # its CA; if it has no TLS, its name in docker_registry_insecure",
    ),
    _image(
        "image-registry-missing",
        "The registry does not have the image",
        "No such name or tag there, or none for the server's architecture.",
        "the image in the registry",
        "look for the image in the registry; correct pd_image, pd_release or docker_image_digest",
    ),
    _image(
        "image-registry-digest",
        "The registry gives another image than expected",
        "A layer or the manifest is not what its digest says, or the tag has moved.",
        "content that has its digest",
        "compare the tag's digest with docker_image_digest; if they agree, the registry is damaged",
    ),
    _image(
        "image-registry-answer",
        "The registry's answer is not understood",
        "It gives no manifest of an image, or one of a kind that is not known.",
        "a registry of the OCI distribution specification",
        "curl -I https://REGISTRY/v2/  # see what answers there",
    ),
    _image(
        "image-archive-changed",
        "The archive changed while it was copied",
        "Each piece is compared with what the archive held before.",
        "an archive that nobody changes while it is copied",
        "leave the archive on the controller as it is while it is copied, and run again",
    ),
    _image(
        "image-disk-full",
        "The disk has no room for the image",
        "The archive grows in docker_image_directory, and the Docker Engine unpacks it in its own directory.",
        "space for the archive and for the unpacked image",
        "df -h  # free space, or take another disk (docker_image_directory)",
    ),
    _image(
        "image-source-lost",
        "No server gives the image any longer",
        "All servers that have a part of it have stopped answering, or refuse.",
        "servers that reach each other at their service addresses",
        "check that the servers reach each other at their service addresses, then run again",
    ),
    _image(
        "image-source-failed",
        "The server that was to bring the image could not",
        "The others take it from there.",
        "a server that gets the image from outside",
        "cure what is said of the other server, then run again",
    ),
    _image(
        "image-load-failed",
        "The Docker Engine did not load the image",
        "The archive is damaged, or the Docker Engine failed while it unpacked it.",
        "an archive that docker load takes",
        "journalctl -u docker | tail  # then run again",
    ),
    _image(
        "image-transfer-abandoned",
        "The transfer ended because its rollout is gone",
        "Nobody asked for its state any longer: the controller was stopped or is not connected.",
        "a rollout that lasts as long as the transfer",
        "run again: the transfer resumes",
    ),
    _image(
        "image-transfer-failed",
        "The transfer of the image failed",
        "The reason is the system's own.",
        "a transfer that ends with the image",
        "cure what was seen, then run again: the transfer resumes",
    ),
    _image(
        "image-transfer-gone",
        "The transfer of the image stopped without a result",
        "The server rebooted, or the process was killed.",
        "a transfer that ends with a result",
        "journalctl -k | tail  # see what happened on the server, then run again: the transfer resumes",
    ),
)

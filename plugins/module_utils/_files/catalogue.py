# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Reasons why a folder on a server cannot be used; the source of docs/failures.md."""

from __future__ import annotations

from .._findings import ERROR, Catalogue, Check

SOURCE = "this collection, plugins/module_utils/_files"
# Whoever can write to a folder decides what root reads or runs from it.
REPLACEABLE = "Another user could replace what root reads or runs from it."


def _folder(code: str, title: str, why: str, expected: str, cure: str) -> Check:
    return Check(code, title, why, ERROR, expected, cure, SOURCE)


FOLDER_CHECKS = Catalogue(
    _folder(
        "folder-name-invalid",
        "The name of a deployment is not valid",
        "Directories, files and containers that root creates and removes carry this name.",
        "letters, digits, dots, dashes and underscores, a letter or a digit first, at most 63",
        "correct the name",
    ),
    _folder(
        "folder-path-invalid",
        "The path of a folder is not valid",
        "Root creates and removes files at that path.",
        "an absolute path below /, such as /data/folder",
        "correct the path",
    ),
    _folder(
        "folder-not-trusted",
        "Users other than root can change a directory or the path to it",
        "They could replace what root writes there, or redirect root to another directory.",
        "directories owned by root that no other user can write to",
        "ls -ld {path}  # correct its owner or mode, or set pd_host_dir to a directory of root",
    ),
    _folder(
        "folder-unwritable",
        "A folder cannot be created",
        "The file system is read-only, full, or refuses root.",
        "a folder that can be created",
        "findmnt -T {path}  # choose a folder on a disk to which root on this server can write",
    ),
    _folder(
        "folder-unreadable",
        "A folder cannot be opened",
        "Its owner cannot be determined.",
        "a folder that root can open",
        "findmnt -T {path}  # repair the mount or the link, or choose another folder",
    ),
    _folder(
        "folder-is-none",
        "The path of a folder is not a folder",
        "It is not replaced, because somebody may need it.",
        "a folder, or nothing",
        "ls -ld {path}  # remove it, or choose another folder",
    ),
    _folder(
        "folder-writable-by-others",
        "Other users can write to a folder",
        REPLACEABLE,
        "a folder, and folders above it, in which only its owner can write",
        "chmod go-w {path}  # check its content first; or choose another folder",
    ),
    _folder(
        "folder-of-another-user",
        "A folder belongs to another user",
        REPLACEABLE,
        "root as the owner of the folder and of all folders above it",
        "ls -ld {path}  # choose a folder below one that belongs to root",
    ),
    _folder(
        "folder-not-empty",
        "A folder is in use for something else",
        "This collection removes its files there later, with everything else in the folder.",
        "an empty folder, or one from an earlier run",
        "choose a folder that is not used for anything else",
    ),
)

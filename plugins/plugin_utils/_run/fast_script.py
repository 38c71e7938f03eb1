# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""A function of module_utils as a script for a server's Python, with all that it imports from there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ...module_utils import _findings
from . import server_python

SOURCES = Path(_findings.__file__).parent
PACKAGE = "pd_rollout_piped"
MARK = "ascend.pd_rollout result "
# No directory, variable or user of the server decides what is imported.
FLAGS = "-I"

# `from .sibling import name`, also over several lines. Parsing all files takes Python 0.1 s a script.
_IMPORT = re.compile(
    r"^[ \t]*from[ \t]+(?P<dots>\.+)(?P<module>[\w.]*)[ \t]+import[ \t]+(?P<names>\([^)]*\)|[^\n]*)",
    re.MULTILINE,
)
_COMMENT = re.compile(r"#.*")

# Its first lines are for every Python 3: one that is too old says so, and that is the result. The texts are
# ASCII: Python 3.9 and older may refuse a long line of their input that has other characters.
_SCRIPT = """\
import json, sys

def tell(result):
    sys.stdout.write("\\n" + {mark!r} + json.dumps(result) + "\\n")

if sys.version_info[:2] < {needed!r}:
    tell({{"failed": True, "changed": False, "python": ".".join(map(str, sys.version_info[:3]))}})
    sys.exit()

import importlib.machinery
from os.path import expanduser, expandvars

class Sources:
    texts = {texts}

    def find_spec(self, name, path=None, target=None):
        if name in self.texts:
            return importlib.machinery.ModuleSpec(name, self, is_package=self.texts[name] is None)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__name__
        exec(compile(self.texts[name] or "", name, "exec"), module.__dict__)

sys.meta_path.insert(0, Sources())
from {package}.{entry} import {function}

def expanded(path):
    return [expanded(one) for one in path] if isinstance(path, list) else expanduser(expandvars(path))

options = json.loads({options!r})
options.update({{name: expanded(options[name]) for name in {paths!r} if options.get(name)}})
tell({function}(options))
"""


def prepare(entry: str) -> None:
    """Read the files that a script of this entry carries; workers that are forked later have them."""
    _literal(entry)


def script(entry: str, function: str, options: Mapping[str, Any], paths: Sequence[str] = ()) -> str:
    """A script that calls a function of module_utils.

    entry: the file's name below module_utils, with dots: `_host.entry`.
    function: the function in it, which takes the options and returns the result.
    options: the options, which JSON can hold.
    paths: the names of those in which ~ and variables are replaced, as modules do.
    """
    return _SCRIPT.format(
        texts=_literal(entry),
        package=PACKAGE,
        entry=entry,
        function=function,
        options=json.dumps(options),
        paths=list(paths),
        mark=MARK,
        needed=server_python.NEEDED,
    )


@cache
def _literal(entry: str) -> str:
    """The sources as a literal of Python."""
    return ascii({f"{PACKAGE}.{name}".rstrip("."): text for name, text in sources(entry).items()})


@cache
def sources(entry: str) -> dict[str, str | None]:
    """The texts of a file of module_utils and of those that it imports, by their names with dots; packages,
    which hold nothing themselves, with None."""
    found: dict[str, str | None] = {"": None}
    wanted = [entry]
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        path = SOURCES.joinpath(*name.split("."))
        if path.is_dir():
            found[name] = None
            continue
        found[name] = path.with_suffix(".py").read_text(encoding="utf-8")
        wanted += [package for package in _parents(name) if package]
        wanted += _imported(name, found[name] or "")
    return found


def _parents(name: str) -> Iterator[str]:
    """Yield the packages around a module, nearest first; the last is module_utils itself, the empty name."""
    while name:
        name = name.rpartition(".")[0]
        yield name


def _imported(name: str, text: str) -> Iterator[str]:
    """Yield what a module of module_utils imports from module_utils; these imports are all relative."""
    around = list(_parents(name))
    for found in _IMPORT.finditer(text):
        package = ".".join(part for part in (around[len(found["dots"]) - 1], found["module"]) if part)
        if SOURCES.joinpath(*package.split(".")).is_dir():
            names = _COMMENT.sub("", found["names"]).strip("() \n").split(",")
            yield from (f"{package}.{one.split()[0]}".lstrip(".") for one in names if one.strip())
        else:
            yield package


def result_in(output: str) -> dict[str, Any] | None:
    """Return the result in the script's output; None if it did not get that far."""
    for line in output.splitlines():
        if line.startswith(MARK):
            found = json.loads(line[len(MARK) :])
            return found if isinstance(found, dict) else None
    return None

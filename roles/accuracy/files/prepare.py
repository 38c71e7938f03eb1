"""Configure AISBench for the proxy; run by the Python that AISBench is installed for.

    prepare.py settings.json CONFIG_DIR

Writes CONFIG_DIR/models/<name>.py: the model configuration that this version of AISBench ships, with the
settings in place of its values. The shipped file is edited rather than replaced, because imports and keys
differ between versions, and because AISBench parses it lazily, so that code in it could not set the values.
Then links the data sets to where AISBench looks for them. Prints everything that is missing and how to
provide it, and exits with 3.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any


def package_folder() -> Path | None:
    """Return the folder of the package ais_bench, or None if it is not installed."""
    spec = importlib.util.find_spec("ais_bench")
    locations = list(spec.submodule_search_locations or ()) if spec else []
    return Path(locations[0]) if locations else None


def set_keywords(call: ast.Call, values: dict[str, Any], optional: dict[str, Any]) -> None:
    """Set keywords in the syntax tree of a call ``dict(…)``.

    call: the call, which is changed.
    values: the keywords to set, added if missing; mappings are merged.
    optional: the keywords to set only if the call has them.
    """
    present = {keyword.arg: keyword for keyword in call.keywords}
    for name, value in {**values, **{key: v for key, v in optional.items() if key in present}}.items():
        if name not in present:
            call.keywords.append(ast.keyword(name, ast.parse(repr(value), mode="eval").body))
            continue
        inner = present[name].value
        if isinstance(value, dict) and isinstance(inner, ast.Call):
            set_keywords(inner, value, {})
        else:
            present[name].value = ast.parse(repr(value), mode="eval").body


def configured(text: str, values: dict[str, Any], optional: dict[str, Any]) -> str:
    """Return the source of a shipped configuration with the values of its model replaced.

    text: the source of the shipped configuration.
    values, optional: as in ``set_keywords``.

    Raises ValueError if it has no list ``models`` with exactly one ``dict(…)``.
    """
    tree = ast.parse(text)
    for statement in tree.body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.List):
            continue
        target = statement.targets[0]
        models = [item for item in statement.value.elts if isinstance(item, ast.Call)]
        if isinstance(target, ast.Name) and target.id == "models" and len(models) == 1:
            set_keywords(models[0], values, optional)
            return ast.unparse(tree) + "\n"
    raise ValueError("it has no list `models` with one dict(…)")


def find_one(folder: Path, name: str) -> Path | None:
    """Return a configuration below a folder by its file name, with or without .py; None if there is none."""
    return next(iter(sorted(folder.rglob(name if name.endswith(".py") else f"{name}.py"))), None)


def place_dataset(package: Path, source: Path, name: str) -> str | None:
    """Link the data set at ``source`` as ais_bench/datasets/``name``; return a problem, or None."""
    place = package / "datasets" / name
    if place.is_symlink():
        place.unlink()
    if place.exists():
        return None
    if not source.exists() or not any(source.iterdir()):
        return f"the data set is neither in {place} nor in {source}"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(source, target_is_directory=True)
    return None


def main(settings_path: str, config_dir: str) -> int:
    settings = json.loads(Path(settings_path).read_text(encoding="utf-8"))
    package = package_folder()
    if package is None:
        print(f"MISSING: AISBench is not installed for {sys.executable}. {settings['cure']['aisbench']}")
        return 3
    missing = []
    # The deployment's key is passed in the environment, so that no settings file contains it.
    key = os.environ.get("OPENAI_API_KEY")
    optional = {"api_key": key} if key else {}
    configs = package / "benchmark" / "configs"
    shipped = find_one(configs / "models", settings["config"])
    if shipped is None:
        missing.append(f"this AISBench has no model configuration {settings['config']}")
    else:
        try:
            text = configured(shipped.read_text(encoding="utf-8"), settings["values"], optional)
        except ValueError as error:
            missing.append(f"{shipped} cannot be used: {error}")
        else:
            if key and key not in text:
                missing.append(
                    "the engines require an API key, but this AISBench's model configuration has no api_key"
                )
            made = Path(config_dir) / "models" / f"{settings['name']}.py"
            made.parent.mkdir(parents=True, exist_ok=True)
            made.touch(mode=0o600)
            made.write_text(text, encoding="utf-8")
    for dataset in settings["datasets"]:
        if find_one(configs / "datasets", dataset["config"]) is None:
            missing.append(f"this AISBench has no data set configuration {dataset['config']}")
        problem = place_dataset(package, Path(dataset["data"]) / dataset["folder"], dataset["folder"])
        if problem:
            missing.append(f"{problem}. {settings['cure']['dataset']}")
    for problem in missing:
        print(f"MISSING: {problem}")
    return 3 if missing else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

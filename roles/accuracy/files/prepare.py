"""Aim AISBench at the proxy: run by the Python that AISBench is installed for.

    prepare.py settings.json CONFIG_DIR

Writes CONFIG_DIR/models/<name>.py: the model configuration that this version of AISBench ships, with the
settings in place of its values. It is read, and not replaced by one of ours, as imports and keys differ by
version, and AISBench reads it lazily, so that no code in it could change it. Then puts the data sets where
AISBench looks for them. Says everything that is missing, and how to get it, and ends with 3.
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
    """Where ais_bench is installed."""
    spec = importlib.util.find_spec("ais_bench")
    locations = list(spec.submodule_search_locations or ()) if spec else []
    return Path(locations[0]) if locations else None


def set_keywords(call: ast.Call, values: dict[str, Any], optional: dict[str, Any]) -> None:
    """Set keywords of `dict(…)`; optional ones only where they are there. Mappings are merged."""
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
    """The shipped configuration with its model's values replaced."""
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
    """A configuration by its file name."""
    return next(iter(sorted(folder.rglob(name if name.endswith(".py") else f"{name}.py"))), None)


def place_dataset(package: Path, source: Path, name: str) -> str | None:
    """Link a data set under ais_bench/datasets; what is wrong, or None."""
    place = package / "datasets" / name
    if place.is_symlink():
        place.unlink()
    if place.exists():
        return None
    if not source.exists() or not any(source.iterdir()):
        return f"the data set lies neither in {place} nor in {source}"
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
    # The key of the deployment comes by the environment: it is in no file that is laid down for this.
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
                    "the engines ask for an API key, and this AISBench's model configuration has no api_key"
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

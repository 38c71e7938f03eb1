#!/usr/bin/env python3
"""Write one directory with all that a site without a network needs: `make bundle`.

The collection, the Python wheels of the controller, those of vllm-router for the servers, the engine's image,
the manifest of the weights, and AISBench's wheels, with checksums of everything and a README that says how to
use it. An image and weights
are only in it if they are named: bundle.py --image FILE --weights DIRECTORY --aisbench DIRECTORY.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# By this name mypy checks what is imported here; by that of the collection it would pass over it.
sys.path.insert(0, str(ROOT))

from plugins.plugin_utils._distribution.router_wheels import WheelError, provided  # noqa: E402
from plugins.plugin_utils.rollout.routers import vllm_router  # noqa: E402

BIN = Path(sys.executable).parent
CHUNK = 4 * 1024 * 1024
# Hashing is bound by the disk and by one core a file.
HASHERS = 4
README = """\
# ascend.pd_rollout for a site without a network

Compare everything with its checksums after it was carried over:

    sha256sum --check --quiet SHA256SUMS

## The controller

Python {python} on {platform}; it needs no pip of its own.

    python3 -m venv --without-pip venv
    venv/bin/python {pip}/pip install --no-index --find-links wheels --requirement requirements.txt
    venv/bin/ansible-galaxy collection install --offline --no-deps --collections-path collections {collection}
    export ANSIBLE_COLLECTIONS_PATH=$PWD/collections:$(echo $PWD/venv/lib/python3*/site-packages)

## The rollout

In the inventory's `group_vars/all.yml`:

```yaml
{variables}
```

Then, as often as you like:

    venv/bin/ansible-playbook --inventory INVENTORY ascend.pd_rollout.deploy

The servers need nothing from outside: their operating system with Python 3, a Docker Engine, python3-requests
and rsync. If the image has another name than the release's own, give it as `pd_image`.
{notes}"""


def sha256(path: Path) -> str:
    """The hash of a file's contents, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def run(*command: str | Path) -> None:
    """Run a command; what it prints is shown only if it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(str(word) for word in command)}\n{done.stdout[-3000:]}")


def place(source: Path, target: Path) -> None:
    """Put a file into the bundle: a hard link where that goes, for an image may have tens of gigabytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def files_of(folder: Path) -> list[str]:
    """Relative names of all files."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def manifest(weights: Path) -> dict[str, object]:
    """Sizes and SHA-256 of every file of a model that is not hidden."""
    names = [name for name in files_of(weights) if not any(part.startswith(".") for part in Path(name).parts)]
    if not any(name.endswith(".safetensors") for name in names):
        raise SystemExit(f"{weights}: no *.safetensors file; name the model's directory.")
    with ThreadPoolExecutor(HASHERS) as pool:
        hashes = list(pool.map(lambda name: sha256(weights / name), names))
    files = {
        name: {"size": (weights / name).stat().st_size, "sha256": value}
        for name, value in zip(names, hashes, strict=True)
    }
    return {"version": 1, "model": weights.name, "files": files}


def collect(folder: Path, options: argparse.Namespace) -> None:
    """Everything but the checksums, into a new directory."""
    print("Collection", flush=True)
    run(BIN / "ansible-galaxy", "collection", "build", "--output-path", folder)
    collection = next(folder.glob("ascend-pd_rollout-*.tar.gz")).name
    print(f"Python wheels ({options.requirements.name})", flush=True)
    shutil.copy(options.requirements, folder / "requirements.txt")
    download = (
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--only-binary=:all:", f"--python-version={options.python}", "--dest", folder / "wheels"),
    )
    run(*download, "--requirement", options.requirements, f"pip=={version('pip')}")
    variables, notes = [], []
    if options.image:
        print(f"Image {options.image.name}", flush=True)
        place(options.image, folder / "image" / options.image.name)
        variables += [
            "pd_image_source: archive",
            f"pd_image_archive: /path/of/this/bundle/image/{options.image.name}",
            "# It is on the controller: it goes to one server, and from there to the others.",
            "pd_image_archive_remote_src: false",
        ]
    else:
        notes.append("No image is in this bundle (`--image`): load it on the servers in another way.")
    if options.weights:
        print(f"Manifest of {options.weights.name}", flush=True)
        text = json.dumps(manifest(options.weights), indent=1) + "\n"
        (folder / "weights-manifest.json").write_text(text, encoding="utf-8")
        variables += [
            "# One of the servers has them at pd_model_path, and gives them to the others. Or the controller",
            "# does: pd_weights_source: controller, model_weights_directory: the directory there.",
            "pd_weights_source: server",
            "model_weights_manifest: /path/of/this/bundle/weights-manifest.json",
        ]
    else:
        notes.append("No manifest of weights is in this bundle (`--weights`): only sizes will be verified.")
    print("Wheels of vllm-router", flush=True)
    for pins in vllm_router().wheels.values():
        for name, path in provided(pins, str(options.router or "")).items():
            place(path, folder / "router" / name)
    variables += [
        "# With pd_router: vllm_router. For servers of either architecture.",
        "pd_router_wheels: /path/of/this/bundle/router",
    ]
    if options.aisbench:
        print("AISBench", flush=True)
        wheels = sorted(options.aisbench.glob("*.whl"))
        if not wheels:
            raise SystemExit(f"{options.aisbench}: no wheels there.")
        for wheel in wheels:
            place(wheel, folder / "aisbench" / wheel.name)
        notes.append("AISBench's wheels are in `aisbench/`.")
    readme = README.format(
        python=options.python,
        platform=f"{sys.platform} {os.uname().machine}",
        pip=next(folder.glob("wheels/pip-*.whl")).relative_to(folder),
        collection=collection,
        variables="\n".join(variables) or "# nothing for this bundle",
        notes="".join(f"\n{note}\n" for note in notes),
    )
    (folder / "README.md").write_text(readme, encoding="utf-8")


def is_bundle(folder: Path) -> bool:
    """Whether a directory is an earlier bundle, which may go: other sites have lists of sums as well."""
    readme = folder / "README.md"
    return (
        (folder / "SHA256SUMS").is_file()
        and readme.is_file()
        and readme.read_text(encoding="utf-8", errors="replace").startswith(README.partition("\n")[0])
    )


def main() -> int:
    """Make the bundle beside its place, and put it there when it is complete."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bundle", help="build/bundle")
    parser.add_argument("--image", type=Path, help="the image's archive, as docker save writes it")
    parser.add_argument("--weights", type=Path, help="the model's directory, for a manifest with SHA-256")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    parser.add_argument(
        "--python", default=here, help=f"version of the controller's Python ({here}, as here)"
    )
    parser.add_argument(
        "--requirements",
        type=Path,
        default=ROOT / "requirements.txt",
        help="the controller's Python packages: requirements.txt, or one like requirements-newest.txt",
    )
    parser.add_argument("--aisbench", type=Path, help="a directory with AISBench's wheels")
    parser.add_argument("--router", type=Path, help="a directory with vllm-router's wheels (fetched by pip)")
    options = parser.parse_args()
    for name in ("image", "requirements", "weights", "aisbench", "router"):
        path = getattr(options, name)
        folders = ("weights", "aisbench", "router")
        if path is not None and not (path.is_dir() if name in folders else path.is_file()):
            parser.error(f"--{name}: {path} is not there")
    if options.output.exists() and not is_bundle(options.output):
        parser.error(f"--output: {options.output} is there and is no bundle; name another directory")
    draft = options.output.with_name(f".{options.output.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        try:
            collect(draft, options)
        except WheelError as error:
            raise SystemExit(str(error)) from error
        sums = "".join(f"{sha256(draft / name)}  {name}\n" for name in files_of(draft))
        (draft / "SHA256SUMS").write_text(sums, encoding="utf-8")
        shutil.rmtree(options.output, ignore_errors=True)
        draft.rename(options.output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    size = sum((options.output / name).stat().st_size for name in files_of(options.output))
    print(f"{options.output}: {size / 1e6:,.0f} MB; its README.md says how to use it")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The images: a server (Debian with sshd and Docker), a controller (a newer Debian without Docker) and, for
each tag, the engine (`vllm-ascend`, as an archive).

A tag is a release and what it is built for, as upstream's: `v0.13.0-a3` for Atlas A3, `v0.13.0` for A2. The
controller, and the engine of a tag, are made when an inventory first needs them. All are made once and kept:
the name of what is made carries a hash of all that it was made from.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from pdsim.docker import docker, has_image, run
from pdsim.layout import CACHE, ROOT, SIMULATOR, digest
from pdsim.ui import SimError, Step, run_shown, say, step

SUITE = "bookworm"
# What every machine has from its operating system.
COMMON_PACKAGES = (
    "ca-certificates",
    "curl",
    "dash",
    "iproute2",
    "iputils-ping",
    "openssh-server",
    "openssl",
    "procps",
    "python3",
    "rsync",
    "sudo",
)
# By the value of an inventory's sim_image: the release of Debian, and its packages. On a server these are
# what roles may rely on; a controller has another Python (3.13), and no Docker.
SERVERS = {
    "server": (
        SUITE,
        (
            *COMMON_PACKAGES,
            "dbus",
            "docker.io",
            "iptables",
            "nftables",
            "python3-requests",
            "systemd",
            "systemd-sysv",
        ),
    ),
    "controller": ("trixie", COMMON_PACKAGES),
}
DEFAULT_SERVER = "server"
# How a package of Debian is called (Debian Policy, 5.6.1).
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
# What apt takes from the environment.
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy")
ENGINE_PACKAGES = ("ca-certificates", "curl", "python3")
# What the real proxy script imports; FastAPI as vllm-ascend 0.13.0 pins it (< 0.124).
ENGINE_WHEELS = SIMULATOR / "images" / "engine-requirements.txt"
ENGINE_PYTHON = "3.11"
ENGINE_SITE = "usr/local/lib/python3.11/dist-packages"
# What ModelScope's package has for training and inference: its download imports none of it.
UNNEEDED_WHEEL_PARTS = tuple(
    f"modelscope/{part}"
    for part in (
        "exporters",
        "metrics",
        "models",
        "msdatasets",
        "ops",
        "pipelines",
        "preprocessors",
        "trainers",
    )
)
ENGINE_COMPILED = ("/opt/pd-sim-engine", f"/{ENGINE_SITE}")
ENGINE_ROOTFS = SIMULATOR / "engine" / "rootfs"
ENGINE_CHANGES = (
    'ENTRYPOINT ["/usr/local/bin/docker-entrypoint.sh"]',
    'CMD ["/bin/bash"]',
    "WORKDIR /workspace",
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "ENV PYTHONUNBUFFERED=1",
)
# The real proxy of each release, from the source distribution of vllm-ascend on PyPI: version and hash.
PROXIES = {
    "v0.13.0": ("0.13.0", "ab0e9bc12b9a4042c261901ccad96f4faab6e6d04cf5131f7cc2358aafda3a36"),
    "v0.18.0": ("0.18.0", "8df042cfaae06fab993bff5f38bb45097634c3f398b2cf74e068347abdddb344"),
    "v0.23.0": ("0.23.0.post1", "a3b9f4a5dd7aa50c37e03d1f35937c4ae5aeacc49b734cac74d59ce5757738e1"),
}
A3_SUFFIX = "-a3"
DEFAULT_TAG = f"v0.13.0{A3_SUFFIX}"
RELEASE_FILE = "opt/pd-sim-engine/release"
HARDWARE_FILE = "opt/pd-sim-engine/hardware"
PROXY_FOLDER = "examples/disaggregated_prefill_v1"
# Seconds for which an archive is left alone that no server uses yet.
FRESH = 600
# What no server and no engine needs of a Debian package. Docker loads less, and so faster.
UNNEEDED = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
)
UNNEEDED_IN_ENGINE = (
    "usr/bin/perl*",
    "usr/lib/*-linux-gnu/gconv",
    "usr/lib/*-linux-gnu/libperl*",
    "usr/lib/*-linux-gnu/perl*",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/perl*",
    "usr/share/zoneinfo",
    "usr/share/info",
    "var/cache/debconf",
    "var/lib/dpkg/info",
)


@cache
def server_recipe(kind: str = DEFAULT_SERVER, extra: tuple[str, ...] = ()) -> str:
    """Hash of all that the image of such a server is made from; `extra` are packages beside its own."""
    suite, packages = SERVERS[kind]
    plain = digest("server 2", suite, *sorted(packages), *UNNEEDED)
    return f"{plain}-{digest(*sorted(set(extra)))}" if extra else plain


def server_image(kind: str = DEFAULT_SERVER, extra: tuple[str, ...] = ()) -> str:
    """The name of the image of such a server."""
    return f"pdsim-{kind}:{server_recipe(kind, extra)}"


def engine_base_image() -> str:
    """The name of the image that engines of all releases are made from."""
    return f"pdsim-engine-base:{engine_base_recipe()}"


def names() -> list[str]:
    """The names of all images that are made here and stay in Docker."""
    plain = [server_image(kind) for kind in SERVERS]
    extended = [name for image in plain for name in listed(f"{image}-*")]
    return [*extended, *plain, engine_base_image()]


def listed(reference: str) -> list[str]:
    """The images in Docker whose names are like this."""
    template = "{{.Repository}}:{{.Tag}}"
    return docker("image", "ls", "--format", template, "--filter", f"reference={reference}").split()


@cache
def engine_base_recipe() -> str:
    """Hash of the slowly changing part of the engine image."""
    return digest(
        "engine 2",
        SUITE,
        *ENGINE_PACKAGES,
        *UNNEEDED,
        *UNNEEDED_IN_ENGINE,
        *UNNEEDED_WHEEL_PARTS,
        ENGINE_WHEELS,
    )


def engine_reference(tag: str) -> str:
    """The engine image's name in its archive."""
    return f"ascend/vllm-ascend:{tag}"


def release_of(tag: str) -> str:
    """The release that a tag is of, if it can be simulated."""
    release = tag.removesuffix(A3_SUFFIX)
    if release not in PROXIES:
        raise SimError(f"release {release} cannot be simulated; there are {', '.join(PROXIES)}.")
    return release


@cache
def engine_recipe(tag: str) -> str:
    """Hash of all that the engine image of a tag is made from."""
    parts = (*ENGINE_CHANGES, *ENGINE_COMPILED, tag, *PROXIES[release_of(tag)], PROXY_FOLDER)
    return digest(engine_base_recipe(), ENGINE_ROOTFS, *parts)


def engine_folder(tag: str) -> Path:
    """The folder with the engine's archive `vllm-ascend.tar`; servers see it as /opt/pd-sim/images."""
    return CACHE / f"engine-{engine_recipe(tag)}"


def engine_archive(tag: str) -> Path:
    """The engine's image of a tag, as `docker save` writes it."""
    return engine_folder(tag) / "vllm-ascend.tar"


@contextlib.contextmanager
def lock(what: str) -> Iterator[None]:
    """One builder at a time of the server's image, or of the engine's, for all checkouts of this machine."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"lock-{what}").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"  … another run is making the image of the {what}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def ensure(
    tags: Iterable[str] = (DEFAULT_TAG,),
    kinds: Iterable[str] = (DEFAULT_SERVER,),
    extended: Iterable[tuple[str, tuple[str, ...]]] = (),
) -> None:
    """Make what is missing of the images: servers, and side by side engines of these tags.

    `extended` are servers with packages beside those of their kind.
    """
    servers, engines, more = list(kinds), list(tags), sorted(extended)
    with ThreadPoolExecutor() as pool:
        engine = pool.submit(ensure_engines, engines)
        ensure_servers([*servers, *(kind for kind, _ in more)])
        ensure_extended(more)
        engine.result()


def ensure_servers(kinds: Iterable[str] = (DEFAULT_SERVER,)) -> None:
    """Make the servers' images of these kinds that are missing. Needs the standard library alone."""
    missing = [kind for kind in sorted(set(kinds)) if not has_image(server_image(kind))]
    if not missing:
        return
    with lock("server"):
        for kind in missing:
            if has_image(server_image(kind)):
                continue
            suite, packages = SERVERS[kind]
            with step(f"Image of a {kind} (Debian {suite}, {len(packages)} packages; once)") as current:
                build_server(kind, current)
                current.result = server_image(kind)


def ensure_extended(wanted: Iterable[tuple[str, tuple[str, ...]]]) -> None:
    """Make the images that are missing of servers with further packages; those of their kinds are there."""
    missing = [one for one in wanted if not has_image(server_image(*one))]
    if not missing:
        return
    with lock("server"):
        for kind, extra in missing:
            if has_image(server_image(kind, extra)):
                continue
            with step(f"Image of a {kind} with {', '.join(extra)} (once)") as current:
                extend_server(kind, extra, current)
                current.result = server_image(kind, extra)


def ensure_engines(tags: Iterable[str] = (DEFAULT_TAG,)) -> None:
    """Make the engine's images of these tags that are missing, as archives."""
    missing = [tag for tag in sorted(set(tags)) if not engine_archive(tag).exists()]
    if not missing:
        return
    with lock("engine"):
        for tag in missing:
            archive = engine_archive(tag)
            if archive.exists():
                continue
            if not has_image(engine_base_image()):
                with step("Engine image, base (Debian, Python, the proxy's libraries; once)") as current:
                    build_engine_base(current)
            with step(f"Engine image {tag}") as current:
                build_engine(tag, current)
                current.result = f"{engine_reference(tag)}, {archive.stat().st_size / 1e6:.0f} MB"


def prune() -> None:
    """Remove everything that `ensure` made, for all checkouts."""
    with lock("server"), lock("engine"):
        volumes = docker("volume", "ls", "--quiet", "--filter", "label=pdsim.preload").split()
        # Docker itself keeps an image that a server of another checkout runs on.
        for image in listed("pdsim-*"):
            docker("image", "rm", image, check=False)
        for volume in volumes:
            docker("volume", "rm", volume, check=False)
        for folder in CACHE.glob("engine-*"):
            if not docker("ps", "--all", "--quiet", "--filter", f"volume={folder}"):
                shutil.rmtree(folder)


def build_server(kind: str, current: Step) -> None:
    """Debian with the packages of such a server."""
    suite, packages = SERVERS[kind]
    with tempfile.TemporaryDirectory(prefix="pdsim-") as folder:
        if can_bootstrap():
            archive = Path(folder) / "server.tar"
            bootstrap(archive, suite, packages, (), current)
            current.note = "docker import"
            docker("import", str(archive), server_image(kind))
        else:
            build_from_registry(server_image(kind), suite, packages, Path(folder), current)


def extend_server(kind: str, extra: tuple[str, ...], current: Step) -> None:
    """Such a server with further packages of Debian; their services are enabled as Debian does."""
    reference = server_image(kind, extra)
    maker = reference.replace(":", "-") + "-maker"
    docker("rm", "--force", maker, check=False)
    variables = [
        word
        for name in PROXY_VARIABLES
        for word in ("--env", f"{name}={os.environ.get(name, '')}")
        if os.environ.get(name)
    ]
    # Nothing is to be started here: this is no server that runs.
    script = (
        "printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d"
        " && apt-get update"
        f" && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {' '.join(extra)}"
        " && apt-get clean && rm -rf /var/lib/apt/lists/* /usr/sbin/policy-rc.d"
    )
    options = ["--name", maker, "--network", "host", *variables, server_image(kind)]
    try:
        run_shown(["docker", "run", *options, "sh", "-c", script], current)
        current.note = "docker commit"
        docker("commit", maker, reference)
    finally:
        docker("rm", "--force", maker, check=False)


def build_engine_base(current: Step) -> None:
    """Debian, Python and the libraries of the proxy."""
    reference = engine_base_image()
    with tempfile.TemporaryDirectory(prefix="pdsim-") as scratch:
        folder = Path(scratch)
        root = folder / "root"
        install_wheels(root / ENGINE_SITE, current)
        if can_bootstrap():
            archive = folder / "engine.tar"
            remove = 'cd "$1" && rm -rf ' + " ".join(UNNEEDED_IN_ENGINE)
            bootstrap(archive, SUITE, ENGINE_PACKAGES, (f'cp -r {root}/* "$1"/', remove), current)
            current.note = "docker import"
            docker("import", str(archive), reference)
        else:
            build_from_registry(reference, SUITE, ENGINE_PACKAGES, folder, current)


def build_engine(tag: str, current: Step) -> None:
    """The base, and on it the release's proxy and the simulated engine; saved as an archive."""
    reference = engine_reference(tag)
    with tempfile.TemporaryDirectory(prefix="pdsim-") as folder:
        proxy = fetch_proxy(release_of(tag), Path(folder), current)
    base = engine_base_image()
    # Compiled beforehand: several engines start at the same moment.
    container = docker("create", base, "python3", "-m", "compileall", "-q", *ENGINE_COMPILED)
    try:
        docker("cp", "-", f"{container}:/", data=engine_layer(tag, proxy))
        docker("start", "--attach", container)
        changes = [part for change in ENGINE_CHANGES for part in ("--change", change)]
        docker("commit", *changes, container, reference)
    finally:
        docker("rm", "--force", container)
    current.note = "docker save"
    archives = engine_folder(tag)
    archives.mkdir(parents=True, exist_ok=True)
    unfinished = archives / ".vllm-ascend.tar"
    docker("save", "--output", str(unfinished), reference)
    unfinished.chmod(0o644)
    unfinished.rename(engine_archive(tag))
    docker("image", "rm", reference)
    wanted = {engine_folder(f"{release}{suffix}") for release in PROXIES for suffix in (A3_SUFFIX, "")}
    for other in CACHE.glob("engine-*"):
        if other not in wanted and not in_use(other):
            shutil.rmtree(other, ignore_errors=True)


def in_use(folder: Path) -> bool:
    """Whether a server has this archive mounted, or one that is being made may have it soon."""
    if time.time() - folder.stat().st_mtime < FRESH:
        return True
    listed = docker("ps", "--all", "--quiet", "--filter", f"volume={folder}")
    return bool(listed)


def engine_layer(tag: str, proxy: dict[str, bytes]) -> bytes:
    """The simulated engine as a tar archive: rootfs/, what it is, the proxy, `python`, the work folder."""
    texts = {f"vllm-workspace/vllm-ascend/{PROXY_FOLDER}/{name}": text for name, text in proxy.items()}
    texts[RELEASE_FILE] = f"{release_of(tag)}\n".encode()
    texts[HARDWARE_FILE] = f"{'A3' if tag.endswith(A3_SUFFIX) else 'A2'}\n".encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(ENGINE_ROOTFS.rglob("*")):
            if "__pycache__" in path.parts:
                continue
            entry = tar.gettarinfo(path, str(path.relative_to(ENGINE_ROOTFS)))
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = "root"
            if entry.isfile():
                with path.open("rb") as handle:
                    tar.addfile(entry, handle)
            else:
                tar.addfile(entry)
        for name, text in texts.items():
            written = tarfile.TarInfo(name)
            written.mode = 0o644
            written.size = len(text)
            tar.addfile(written, io.BytesIO(text))
        python = tarfile.TarInfo("usr/local/bin/python")
        python.type = tarfile.SYMTYPE
        python.linkname = "/usr/bin/python3"
        tar.addfile(python)
        workspace = tarfile.TarInfo("workspace")
        workspace.type = tarfile.DIRTYPE
        workspace.mode = 0o755
        tar.addfile(workspace)
    return buffer.getvalue()


def can_bootstrap() -> bool:
    """Whether Debian can be put together here: root, and mmdebstrap (which needs apt)."""
    return (
        os.geteuid() == 0 and shutil.which("mmdebstrap") is not None and shutil.which("apt-get") is not None
    )


def bootstrap(
    archive: Path, suite: str, packages: tuple[str, ...], hooks: tuple[str, ...], current: Step
) -> None:
    """A Debian root file system as a tar archive, by mmdebstrap."""
    log = archive.with_suffix(".log")
    command = ["mmdebstrap", "--variant=minbase", "--mode=root", f"--include={','.join(packages)}"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in UNNEEDED]
    # Nobody needs what is being made after a crash of this machine.
    command.append("--dpkgopt=force-unsafe-io")
    command += ['--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Retries "3"']
    for hook in hooks:
        command.append(f"--customize-hook={hook}")
    command += ['--customize-hook=rm -f "$1"/etc/ssh/ssh_host_*', suite, str(archive)]
    run_shown(command, current, log=log)


def build_from_registry(
    reference: str, suite: str, packages: tuple[str, ...], folder: Path, current: Step
) -> None:
    """The same from the public image of Debian, where there is a registry and no mmdebstrap."""
    context = folder / "context"
    (context / "root").mkdir(parents=True)
    if (folder / "root").exists():
        shutil.copytree(folder / "root", context / "root", dirs_exist_ok=True)
    (context / "Dockerfile").write_text(
        f"FROM debian:{suite}\n"
        "RUN printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d"
        " && apt-get update"
        f" && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {' '.join(packages)}"
        " && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* /usr/sbin/policy-rc.d\n"
        "COPY root/ /\n"
    )
    try:
        run_shown(["docker", "build", "--tag", reference, str(context)], current)
    except SimError as error:
        raise SimError(
            f"{reference} needs either root with mmdebstrap and apt, or a registry with debian:{suite}; "
            f"neither is at hand.\n{error}"
        ) from error


def install_wheels(target: Path, current: Step) -> None:
    """The Python libraries of the engine, wheels for its Python, whatever Python runs here."""
    options = ["--quiet", "--only-binary=:all:", "--python-version", ENGINE_PYTHON, "--no-deps"]
    current.note = "Python libraries from PyPI"
    run_shown([*installer(), *options, "--target", str(target), "--requirement", str(ENGINE_WHEELS)], current)
    for part in UNNEEDED_WHEEL_PARTS:
        shutil.rmtree(target / part)


def installer() -> list[str]:
    """The command that installs wheels: uv's, or pip's where scripts/venv could not have uv."""
    if (Path(sys.executable).parent / "uv").exists():
        return [str(ROOT / "scripts" / "uv"), "pip", "install"]
    options = ["--no-input", "--no-compile", "--disable-pip-version-check", "--implementation", "cp"]
    return [sys.executable, "-m", "pip", "install", *options]


def fetch_proxy(release: str, folder: Path, current: Step) -> dict[str, bytes]:
    """The files of the real proxy's folder, out of the source distribution pinned by its hash."""
    version, sha256 = PROXIES[release]
    package = f"vllm-ascend=={version}"
    current.note = f"{package} from PyPI"
    unearth = Path(sys.executable).parent / "unearth"
    if not unearth.exists():
        raise SimError("unearth is missing in the virtual environment; run `make venv`.")
    command = [str(unearth), package, "--no-binary", "--download", str(folder / "sdist")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    archives = sorted((folder / "sdist").glob("*.tar.gz")) if done.returncode == 0 else []
    if not archives:
        raise SimError(f"{package} could not be fetched from PyPI: {done.stderr.strip()[-500:]}")
    found = hashlib.sha256(archives[0].read_bytes()).hexdigest()
    if found != sha256:
        raise SimError(f"{archives[0].name} has sha256 {found}, expected {sha256}: not used.")
    files: dict[str, bytes] = {}
    with tarfile.open(archives[0]) as tar:
        for member in tar.getmembers():
            if member.isfile() and f"/{PROXY_FOLDER}/" in f"/{member.name}":
                content = tar.extractfile(member)
                assert content is not None
                files[Path(member.name).name] = content.read()
    if "load_balance_proxy_server_example.py" not in files:
        raise SimError(f"{package} holds no proxy under {PROXY_FOLDER}.")
    return files


def preload_volume(tag: str) -> str:
    """A volume with a Docker data folder that holds the engine image already; made when first asked for."""
    name = f"pdsim-preload-{digest(server_recipe(), engine_recipe(tag))}"
    with lock("engine"):
        if not preloaded(name):
            with step(f"Docker data folder with the engine image {tag} (once)"):
                preload(name, tag)
    return name


def preloaded(name: str) -> bool:
    """Whether a preloaded volume is whole: as long as its draft is there, it is not."""
    found = [run(["volume", "inspect", volume], None).returncode == 0 for volume in (name, f"{name}-new")]
    return found == [True, False]


def preload(name: str, tag: str) -> None:
    """Make a preloaded volume: a draft that a Docker Engine has loaded the image into, and its copy."""
    from pdsim.server import start_options  # imported here: that module needs this one

    for unfinished in (name, f"{name}-new"):
        docker("volume", "rm", "--force", unfinished)
    docker("volume", "create", "--label", "pdsim.preload=unfinished", f"{name}-new")
    container = f"{name}-maker"
    docker("rm", "--force", container, check=False)
    try:
        options = start_options(container, f"{name}-new", engine_folder(tag))
        docker("run", "--detach", *options, "--network", "none", server_image(), "sleep", "600")
        script = (
            "dockerd >/tmp/log 2>&1 & until docker info >/dev/null 2>&1; do sleep 0.2; done; "
            "docker load --quiet --input /opt/pd-sim/images/vllm-ascend.tar && kill %1 && wait"
        )
        docker("exec", container, "bash", "-mc", script)
    finally:
        docker("rm", "--force", container, check=False)
    docker("volume", "create", "--label", "pdsim.preload=ready", name)
    copy_volume(f"{name}-new", name)
    docker("volume", "rm", f"{name}-new")


def copy_volume(source: str, target: str) -> None:
    """Copy a volume's content, with all that belongs to the files."""
    mounts = ["--volume", f"{source}:/source:ro", "--volume", f"{target}:/target"]
    docker(
        "run",
        "--rm",
        "--network",
        "none",
        *mounts,
        server_image(),
        "cp",
        "--archive",
        "/source/.",
        "/target/",
    )

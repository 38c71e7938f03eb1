"""Faults of the kernel, the memory and the distribution."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from .base import Fault, OverMount, Parameters


class KernelSays(OverMount):
    """a file of the kernel says something else, as THP or a limit set by others"""

    parameters = "path=/sys/kernel/mm/transparent_hugepage/enabled, value=always madvise [never]"

    def path(self, parameters: Parameters) -> Path:
        """The file."""
        return Path(parameters.get("path", "/sys/kernel/mm/transparent_hugepage/enabled"))

    def text(self, parameters: Parameters) -> str:
        """What was asked for."""
        return f"{parameters.get('value', 'always madvise [never]')}\n"


class Governor(Fault):
    """the CPUs are set to another governor"""

    parameters = "value=powersave"
    place = Path("/sys/devices/system/cpu/cpu0")

    def apply(self, parameters: Parameters) -> None:
        """Show a CPU with that governor in the place of the first one."""
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "pd-sim-cpu", str(self.place)], check=True)
        (self.place / "cpufreq").mkdir()
        (self.place / "cpufreq" / "scaling_governor").write_text(f"{parameters.get('value', 'powersave')}\n")

    def heal(self, parameters: Parameters) -> None:
        """Take it away, whoever reads it at the moment."""
        subprocess.run(["umount", "--lazy", str(self.place)], check=False, stderr=subprocess.DEVNULL)

    boot = apply


class Swappiness(KernelSays):
    """the kernel may swap out programs"""

    parameters = "value=60"

    def path(self, parameters: Parameters) -> Path:
        """The parameter's file."""
        return Path("/proc/sys/vm/swappiness")

    def text(self, parameters: Parameters) -> str:
        """What was asked for."""
        return f"{parameters.get('value', 60)}\n"


class NumaBalancing(Swappiness):
    """the kernel moves memory between NUMA nodes"""

    parameters = "value=1"

    def path(self, parameters: Parameters) -> Path:
        """The parameter's file. A kernel without it has no such thing, and no such fault."""
        return Path("/proc/sys/kernel/numa_balancing")

    def text(self, parameters: Parameters) -> str:
        """What was asked for."""
        return f"{parameters.get('value', 1)}\n"


class MemorySmall(OverMount):
    """the server has little memory"""

    parameters = "gigabytes=2"

    def path(self, parameters: Parameters) -> Path:
        """Where the kernel says how much there is."""
        return Path("/proc/meminfo")

    def text(self, parameters: Parameters) -> str:
        """The same with that much in all, and a tenth less to be had."""
        total = int(float(parameters.get("gigabytes", 2)) * 10**6 / 1.024)
        lines = []
        for line in self.path(parameters).read_text().splitlines():
            name = line.partition(":")[0]
            size = {"MemTotal": total, "MemFree": total // 2, "MemAvailable": total * 9 // 10}.get(name)
            lines.append(line if size is None else f"{name}:{size:>15} kB")
        return "\n".join(lines) + "\n"


class ShmSmall(Fault):
    """/dev/shm is small"""

    parameters = "megabytes=16"

    def resize(self, size: str) -> None:
        """Change its size."""
        subprocess.run(["mount", "-o", f"remount,size={size}", "/dev/shm"], check=True)

    def apply(self, parameters: Parameters) -> None:
        """Make it small, and remember the size."""
        before = Path("/run/pd-sim-shm")
        if not before.exists():
            found = os.statvfs("/dev/shm")
            before.write_text(str(found.f_blocks * found.f_frsize // 1024))
        self.resize(f"{int(parameters.get('megabytes', 16))}m")

    def heal(self, parameters: Parameters) -> None:
        """Give it back."""
        before = Path("/run/pd-sim-shm")
        if before.exists():
            self.resize(f"{before.read_text()}k")
            before.unlink()

    boot = apply


class Distribution(OverMount):
    """the server says that it is of another distribution"""

    parameters = "id=openEuler, version=22.03"

    def path(self, parameters: Parameters) -> Path:
        """The file that says it."""
        return Path("/etc/os-release")

    def text(self, parameters: Parameters) -> str:
        """What it says then."""
        name, version = parameters.get("id", "openEuler"), parameters.get("version", "22.03")
        return f'NAME="{name}"\nID="{name}"\nVERSION_ID="{version}"\nPRETTY_NAME="{name} {version}"\n'


FAULTS: dict[str, type[Fault]] = {
    "kernel_says": KernelSays,
    "governor": Governor,
    "swappiness": Swappiness,
    "numa_balancing": NumaBalancing,
    "memory_small": MemorySmall,
    "shm_small": ShmSmall,
    "distribution": Distribution,
}

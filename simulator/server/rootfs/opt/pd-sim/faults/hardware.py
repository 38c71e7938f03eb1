"""Faults of the chips, the driver and its tools."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .base import Fault, Parameters, PathMissing, keep


class HccnConfMissing(PathMissing):
    """/etc/hccn.conf is not there: engines start and answer wrongly"""

    def path(self, parameters: Parameters) -> Path:
        """The file."""
        return Path("/etc/hccn.conf")


class HccnConfEmpty(HccnConfMissing):
    """/etc/hccn.conf names no chip: engines start and answer wrongly"""

    def apply(self, parameters: Parameters) -> None:
        """Put an empty file in its place."""
        super().apply(parameters)
        self.path(parameters).touch()


class HccnConfIncomplete(PathMissing):
    """/etc/hccn.conf lacks chips"""

    parameters = "chips=[3]"

    def path(self, parameters: Parameters) -> Path:
        """The file."""
        return Path("/etc/hccn.conf")

    def apply(self, parameters: Parameters) -> None:
        """Leave out their lines."""
        path = self.path(parameters)
        lines = path.read_text().splitlines()
        keep(path)
        gone = tuple(f"_{chip}" for chip in parameters.get("chips", [3]))
        left = [line for line in lines if not line.partition("=")[0].endswith(gone)]
        path.write_text("\n".join(left) + "\n")


class DriverVersion(PathMissing):
    """version.info and npu-smi name another driver"""

    parameters = "value=24.1.0"

    def path(self, parameters: Parameters) -> Path:
        """The file."""
        return Path("/usr/local/Ascend/driver/version.info")

    def apply(self, parameters: Parameters) -> None:
        """Change the version in it; npu-smi reads faults.json."""
        path = self.path(parameters)
        _old, *rest = path.read_text().splitlines()
        keep(path)
        path.write_text("\n".join([f"Version={parameters.get('value', '24.1.0')}", *rest]) + "\n")


class DeviceMissing(Fault):
    """a device is not there: /dev/davinciN of a chip, or another one by name"""

    parameters = "chip=3 | device=davinci_manager"

    def path(self, parameters: Parameters) -> Path:
        """The device."""
        return Path("/dev") / str(parameters.get("device", f"davinci{parameters.get('chip', 3)}"))

    def apply(self, parameters: Parameters) -> None:
        """Remove it."""
        self.path(parameters).unlink(missing_ok=True)

    def heal(self, parameters: Parameters) -> None:
        """Make it as a boot does."""
        path = self.path(parameters)
        if not path.exists():
            os.umask(0)
            os.mknod(path, 0o020666, os.makedev(1, 3))

    boot = apply


class DriverMissing(PathMissing):
    """the driver's files are not there"""

    parameters = "path=/usr/local/Ascend/driver"

    def path(self, parameters: Parameters) -> Path:
        """The folder, or the file asked for."""
        return Path(parameters.get("path", "/usr/local/Ascend/driver"))


class ToolMissing(PathMissing):
    """hccn_tool or npu-smi is not installed"""

    parameters = "tool=hccn_tool"

    def path(self, parameters: Parameters) -> Path:
        """The tool."""
        smi = parameters.get("tool", "hccn_tool") == "npu-smi"
        return Path("/usr/local/bin/npu-smi" if smi else "/usr/local/Ascend/driver/tools/hccn_tool")


class ToolNotExecutable(ToolMissing):
    """hccn_tool or npu-smi has no execute permission"""

    def apply(self, parameters: Parameters) -> None:
        """Take the permission."""
        self.path(parameters).chmod(0o644)

    def heal(self, parameters: Parameters) -> None:
        """Give it back."""
        self.path(parameters).chmod(0o755)


class ToolElsewhere(ToolMissing):
    """npu-smi lies elsewhere, as some installations of the driver put it"""

    parameters = "path=/usr/local/sbin/npu-smi"

    def path(self, parameters: Parameters) -> Path:
        """Where it is else."""
        return Path("/usr/local/bin/npu-smi")

    def other(self, parameters: Parameters) -> Path:
        """Where it is then."""
        return Path(parameters.get("path", "/usr/local/sbin/npu-smi"))

    def apply(self, parameters: Parameters) -> None:
        """Lay it there."""
        self.other(parameters).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(self.path(parameters), self.other(parameters))
        super().apply(parameters)

    def heal(self, parameters: Parameters) -> None:
        """Put it back; somebody may have made a link meanwhile."""
        self.other(parameters).unlink(missing_ok=True)
        super().heal(parameters)


FAULTS: dict[str, type[Fault]] = {
    "hccn_conf_missing": HccnConfMissing,
    "hccn_conf_empty": HccnConfEmpty,
    "hccn_conf_incomplete": HccnConfIncomplete,
    "driver_version": DriverVersion,
    "device_missing": DeviceMissing,
    "driver_missing": DriverMissing,
    "tool_missing": ToolMissing,
    "tool_not_executable": ToolNotExecutable,
    "tool_elsewhere": ToolElsewhere,
}

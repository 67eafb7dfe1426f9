"""What a step's container is made of: the body of the engine's create call. Pure.

Source: drone-runner-docker (reference: pipeline format, section 8). Ours: the log driver is `local`
and bounded, the script is an argument of the shell, every object carries the agent's label.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Final

from agents.option_table import Options
from pipeline.scripts import posix, powershell
from pipeline.spec import SERVICE, StageSpec, StepSpec, Volume

#: Who made an object: the agent that may remove it.
OWNER_LABEL: Final = "io.ciserver.agent"
EXPIRES_LABEL: Final = "io.drone.expires"
#: A longer script does not fit into one argument of a program (Linux: 128 KiB).
MAX_ARGUMENT_BYTES: Final = 100_000
SCRIPT_PATH: Final = "/.ciserver-step.sh"
#: A container with commands is started before its turn: its shell waits for a line of input, which
#: `GO` is, or ends with the agent. The commands then see an empty input.
HOLD: Final = "read -r CI_GO || exit 137\nunset CI_GO\nexec </dev/null\n"
GO: Final = b"\n"
#: Where a step has the command `cache`, and asks the agent.
TOOLS_PATH: Final = "/.ciserver"
TOOLS: Final = f'PATH="$PATH:{TOOLS_PATH}"\n'
WINDOWS: Final = "windows"
#: `HOLD` for PowerShell.
WINDOWS_HOLD: Final = "if ($null -eq [Console]::In.ReadLine()) { exit 137 }\n"
_WINDOWS_SHELL: Final = ("powershell", "-noprofile", "-noninteractive", "-command")
_LOG_CONFIG: Final = {
    "Type": "local",
    "Config": {"max-size": "10m", "max-file": "2", "compress": "false"},
}
_HOUR_S: Final = 3600
#: Host folders with sockets below them.
_ABOVE_SOCKETS: Final = ("", "/run", "/var/run", "/var")


@dataclass(frozen=True, slots=True)
class Site:
    """Where the containers of a stage live. `source` is a host path, or empty: `volume` is used."""

    key: str
    network: str
    volume: str
    source: str = ""
    labels: Mapping[str, str] | None = None


def labels(spec: StageSpec, owner: str, now: float) -> dict[str, str]:
    """Labels of everything a stage makes; they outlive its timeout by an hour."""
    namespace, _, name = spec.repo.rpartition("/")
    seconds = int(spec.timeout_s + spec.debug_max_s) + _HOUR_S
    environ = spec.environment
    return {
        OWNER_LABEL: owner,
        "io.drone": "true",
        "io.drone.protected": "false",
        "io.drone.repo.namespace": namespace,
        "io.drone.repo.name": name,
        "io.drone.repo.slug": spec.repo,
        "io.drone.build.number": str(spec.build),
        "io.drone.stage.name": spec.name,
        "io.drone.stage.number": str(spec.stage),
        "io.drone.system.host": environ.get("DRONE_SYSTEM_HOST", ""),
        "io.drone.system.proto": environ.get("DRONE_SYSTEM_PROTO", ""),
        "io.drone.system.version": environ.get("DRONE_SYSTEM_VERSION", ""),
        "io.drone.ttl": f"{seconds}s",
        "io.drone.created": str(int(now)),
        EXPIRES_LABEL: str(int(now) + seconds),
    }


def expired(found: Mapping[str, str], now: float | None = None) -> bool:
    """Whether labels say that their object should be gone by now."""
    text = found.get(EXPIRES_LABEL, "")
    return text.isdigit() and int(text) < (time.time() if now is None else now)


def reaches_engine(spec: StageSpec, options: Options) -> bool:
    """Whether steps of a stage have the socket of an engine, which they may then have do things."""
    paths = [volume.host_path for volume in spec.volumes if volume.kind == "host"]
    paths += [entry.partition(":")[0] for entry in options.volumes]
    return any(path.endswith(".sock") or path.rstrip("/") in _ABOVE_SOCKETS for path in paths)


def script(step: StepSpec, environ: Mapping[str, str], system: str = "linux") -> str:
    """The shell script of a step's commands; empty for a plugin or a plain image."""
    if not step.commands:
        return ""
    if system == WINDOWS:
        return WINDOWS_HOLD + powershell(step.commands, netrc="DRONE_NETRC_FILE" in environ)
    return HOLD + TOOLS + posix(step.commands, netrc="DRONE_NETRC_FILE" in environ)


def is_long(text: str) -> bool:
    """Whether a script has to be a file in the container."""
    return len(text.encode()) > MAX_ARGUMENT_BYTES


def body(
    spec: StageSpec,
    step: StepSpec,
    environ: Mapping[str, str],
    options: Options,
    site: Site,
    tools: str = "",
) -> dict[str, Any]:
    """The create call of a step's container. Every value of `environ` is passed as it is.

    `tools` is the host's directory of the step's tools, if the engine sees it.
    """
    found: dict[str, Any] = {
        "Image": step.image,
        "Env": [f"{name}={value}" for name, value in environ.items()],
        "Labels": {
            **(site.labels or {}),
            "io.drone.step.name": step.name,
            "io.drone.step.number": str(step.number),
        },
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": _host(spec, step, options, site),
    }
    if tools:
        found["HostConfig"]["Mounts"].append(_mount("bind", tools, TOOLS_PATH))
    if step.user:
        found["User"] = step.user
    folder = step.working_dir or _default_folder(spec, step)
    if folder:
        found["WorkingDir"] = folder
    found.update(_program(spec, step, environ))
    if not step.network_mode:
        endpoint = {"Aliases": [step.name]}
        found["NetworkingConfig"] = {"EndpointsConfig": {site.network: endpoint}}
    return found


def _default_folder(spec: StageSpec, step: StepSpec) -> str:
    """A background container without commands starts where its image says."""
    if (step.detach or step.kind == SERVICE) and not step.commands:
        return ""
    return spec.workspace.working_dir


def _program(spec: StageSpec, step: StepSpec, environ: Mapping[str, str]) -> dict[str, Any]:
    text = script(step, environ, spec.os)
    if text:
        held = {"OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
        if spec.os == WINDOWS:
            return {**_powershell(text, environ), **held}
        command = ["/bin/sh", SCRIPT_PATH] if is_long(text) else ["/bin/sh", "-c", text]
        return {"Entrypoint": command[:-1], "Cmd": command[-1:], **held}
    found: dict[str, Any] = {}
    if step.entrypoint:
        found["Entrypoint"] = list(step.entrypoint)
    if step.command:
        found["Cmd"] = list(step.command)
    return found


def _powershell(text: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """PowerShell takes its script from a variable. Source: reference section 4."""
    values = {**environ, "DRONE_SCRIPT": text, "SHELL": "powershell.exe"}
    return {
        "Entrypoint": list(_WINDOWS_SHELL),
        "Cmd": ["$Env:DRONE_SCRIPT | iex"],
        "Env": [f"{name}={value}" for name, value in values.items()],
    }


def _host(spec: StageSpec, step: StepSpec, options: Options, site: Site) -> dict[str, Any]:
    found: dict[str, Any] = {
        "NetworkMode": step.network_mode or site.network,
        "LogConfig": _LOG_CONFIG,
        "Privileged": step.privileged,
        "Mounts": _workspace(spec, site) + _mounts(spec, step, site),
        "Binds": _binds(spec, step, options),
        "Tmpfs": _tmpfs(spec, step),
        "Devices": _devices(spec, step, options),
        "Dns": list(step.dns),
        "DnsSearch": list(step.dns_search),
        "ExtraHosts": list(step.extra_hosts),
        "ShmSize": step.shm_size_bytes or options.shm_size,
        "Memory": step.mem_limit_bytes or options.memory,
        "MemorySwap": step.memswap_limit_bytes or options.memory_swap,
        "CpuQuota": options.cpu_quota,
        "CpuPeriod": options.cpu_period,
        "CpuShares": options.cpu_shares,
        "CpusetCpus": options.cpu_set,
    }
    return {name: value for name, value in found.items() if value}


def _workspace(spec: StageSpec, site: Site) -> list[dict[str, Any]]:
    """The checkout at the workspace's base; one below the base is mounted at its own place."""
    base = spec.workspace.base
    if not site.source:
        return [_mount("volume", site.volume, base)]
    target = checkout_folder(spec)
    if target == base:
        return [_mount("bind", site.source, base)]
    return [_mount("volume", site.volume, base), _mount("bind", site.source, target)]


def checkout_folder(spec: StageSpec) -> str:
    """Where the checkout stands in containers."""
    base, below = spec.workspace.base, spec.workspace.path.lstrip("/\\")
    if spec.os == WINDOWS:
        return str(PureWindowsPath(base) / below)
    return str(PurePosixPath(base) / below)


def docker_variables(site: Site) -> dict[str, str]:
    """What a step that starts containers itself needs for them to join its own.

    The volume may be a folder of the host; `docker run --volume` takes both.
    """
    return {
        "DRONE_DOCKER_NETWORK_ID": site.network,
        "DRONE_DOCKER_VOLUME_ID": site.source or site.volume,
    }


def _mount(kind: str, source: str, target: str) -> dict[str, Any]:
    return {"Type": kind, "Source": source, "Target": target}


def volume_name(site: Site, volume: Volume) -> str:
    """The engine's name of a temporary volume of the stage."""
    return f"{site.key}-{volume.name}"


def _used(spec: StageSpec, step: StepSpec, kind: str) -> list[tuple[Volume, str]]:
    """Volumes of one kind with the path the step mounts them at."""
    known = {volume.name: volume for volume in spec.volumes}
    return [
        (known[mount.name], mount.path)
        for mount in step.volumes
        if mount.name in known and known[mount.name].kind == kind
    ]


def _mounts(spec: StageSpec, step: StepSpec, site: Site) -> list[dict[str, Any]]:
    used = _used(spec, step, "temp")
    return [_mount("volume", volume_name(site, volume), path) for volume, path in used]


def _binds(spec: StageSpec, step: StepSpec, options: Options) -> list[str]:
    used = _used(spec, step, "host")
    stage = [f"{volume.host_path}:{path}" for volume, path in used]
    return [*stage, *options.volumes, *options.files]


def _tmpfs(spec: StageSpec, step: StepSpec) -> dict[str, str]:
    found = {}
    for volume, path in _used(spec, step, "memory"):
        size = f",size={volume.size_limit_bytes}" if volume.size_limit_bytes else ""
        found[path] = f"mode=0700{size}"
    return found


def _devices(spec: StageSpec, step: StepSpec, options: Options) -> list[dict[str, str]]:
    """Devices a step names are host volumes below /dev; those of the agent are for every step."""
    known = {volume.name: volume.host_path for volume in spec.volumes if volume.kind == "host"}
    pairs = [(known[device.name], device.path) for device in step.devices if device.name in known]
    for item in options.devices:
        host, _, rest = item.partition(":")
        inside, _, _ = rest.partition(":")
        pairs.append((host, inside or host))
    return [
        {"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": "rwm"}
        for host, inside in pairs
    ]

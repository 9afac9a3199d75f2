"""Which devices the host has and offers, found without torch.

Knows: nvidia-smi, the number of cores, CUDA_VISIBLE_DEVICES. Must not know: workers.

Where CUDA_VISIBLE_DEVICES is set, `cuda:N` is the Nth of those, as it is for torch in the workers.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass

from headway.errors import SettingsError
from headway.settings import AgentSettings
from headway_worker.agent.offer import SHARE_MAX, Device, Offer

QUERY = ("--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")
ASK_TIMEOUT_S = 30.0  # a driver that nobody has used since the machine's start takes seconds
UUIDS = ("GPU-", "MIG-")


@dataclass(frozen=True)
class Gpu:
    """What nvidia-smi says of one. `memory_bytes` 0: nobody knows."""

    index: str
    uuid: str
    name: str
    memory_bytes: int


def offer(settings: AgentSettings, nvidia_smi: str = "nvidia-smi") -> Offer:
    """What this host offers.

    Raises: SettingsError for a device that is not there, or shares that do not fit.
    """
    names = [name.strip() for name in settings.devices.split(",")]
    if len(set(names)) < len(names) or not all(names):
        raise SettingsError(f"devices: {settings.devices!r} names a device twice, or none between two commas")
    gpus = [] if names == ["cpu"] else find_gpus(nvidia_smi)
    if names == ["auto"]:
        names = [f"cuda:{i}" for i in range(len(gpus))] or ["cpu"]
    devices = tuple(_device(name, gpus, settings.places) for name in names)
    _check_share(settings.share, devices)
    most = settings.workers_max or sum(device.places for device in devices)
    wanted = len(devices) if settings.workers_wanted < 0 else settings.workers_wanted
    return Offer(devices, most, min(wanted, most), settings.share, settings.copies_max)


def find_gpus(nvidia_smi: str = "nvidia-smi") -> list[Gpu]:
    """The GPUs that CUDA programs see here, in their order; none where there is no driver."""
    try:
        said = subprocess.run(
            [nvidia_smi, *QUERY], capture_output=True, text=True, timeout=ASK_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = said.stdout.splitlines() if said.returncode == 0 else []
    return _visible([gpu for line in lines if (gpu := _gpu(line))], os.environ.get("CUDA_VISIBLE_DEVICES"))


def _gpu(line: str) -> Gpu | None:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 4:
        return None
    index, uuid, name, mib = fields
    return Gpu(index, uuid, name, int(mib) << 20 if mib.isdecimal() else 0)


def _visible(gpus: list[Gpu], said: str | None) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES names, up to the first that is not there, as CUDA does."""
    if said is None:
        return gpus
    chosen: list[Gpu] = []
    for word in said.split(","):
        word = word.strip()
        found = [g for g in gpus if word == g.index or (word.startswith("GPU-") and g.uuid.startswith(word))]
        if len(found) != 1:
            break
        chosen += found
    return chosen


def _device(name: str, gpus: list[Gpu], places: int) -> Device:
    if name == "cpu":
        cores = len(os.sched_getaffinity(0))
        title = f"{platform.machine()}, {cores} cores"
        return Device(
            "cpu", "cpu", title, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), places or cores
        )
    if name.startswith(UUIDS):
        gpu = next((g for g in gpus if g.uuid == name), Gpu("", name, name, 0))  # slices are not listed
        return Device(name, name, gpu.name, gpu.memory_bytes, places or 1)
    kind, _, index = name.partition(":")
    if kind != "cuda" or not index.isdecimal():
        raise SettingsError(f"devices: {name!r} is not auto, cpu, cuda:N, or the UUID of a GPU or MIG slice")
    if not gpus:  # no nvidia-smi: whether it is there, its workers will find
        return Device(name, name, "", 0, places or 1)
    if int(index) >= len(gpus):
        raise SettingsError(f"devices: {name!r} is not here; nvidia-smi sees {len(gpus)} GPUs")
    gpu = gpus[int(index)]
    return Device(name, gpu.uuid, gpu.name, gpu.memory_bytes, places or 1)


def _check_share(share: int, devices: tuple[Device, ...]) -> None:
    if share > SHARE_MAX:
        raise SettingsError(f"share: {share} % is over {SHARE_MAX} %")
    for device in devices:
        if share * device.places > SHARE_MAX:
            raise SettingsError(
                f"share: {device.places} places on {device.device} with {share} % each are over {SHARE_MAX} %"
            )

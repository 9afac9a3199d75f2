"""How a worker is started: its settings as options of a command line, or as variables of a unit.

Knows: which settings of the agent are the worker's too. Must not know: processes, systemd.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from headway.settings import AgentSettings, Shared
from headway_worker.agent.orders import Start

LOCK = "agent.lock"
FOLDER = "agent"


@dataclass(frozen=True)
class Launch:
    """`config` is the settings file that the agent was given."""

    settings: AgentSettings
    config: Path | None = None

    @property
    def run_dir(self) -> Path:
        return self.settings.run_dir.resolve()

    @property
    def folder(self) -> Path:
        """What the agent writes down of its workers."""
        return self.run_dir / FOLDER

    @property
    def lock(self) -> Path:
        return self.run_dir / LOCK

    def arguments(self, order: Start) -> list[str]:
        config = [f"--config={self.config}"] if self.config else []
        return config + [f"--{k.replace('_', '-')}={v}" for k, v in self._options(order).items()]

    def variables(self, order: Start) -> dict[str, str]:
        """Both ways to start a worker have these; those that the environment has already win."""
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # so that cuda:N means what nvidia-smi says

    def unit_variables(self, order: Start) -> dict[str, str]:
        """What a unit's environment file says instead of `arguments`."""
        config = {"HEADWAY_CONFIG": str(self.config.resolve())} if self.config else {}
        options = {f"HEADWAY_WORKER_{k.upper()}": str(v) for k, v in self._options(order).items()}
        return self.variables(order) | config | options

    def _options(self, order: Start) -> dict[str, object]:
        shared = {f.name: getattr(self.settings, f.name) for f in fields(Shared)}
        own: dict[str, object] = {
            "name": order.name,
            "device": order.device,
            "threads": self.settings.threads,
            "copies_max": self.settings.copies_max,
            "drain_s": self.settings.drain_s,
            "broker": self.settings.broker,
            "agent_lock": self.lock,
            "orphan_s": self.settings.orphan_s,
        }
        share = {"cuda_mps_share": order.share} if order.share else {}
        run_dir = self.settings.run_dir.absolute()  # as it was said: a socket's path must stay short
        return shared | {"run_dir": run_dir} | own | share

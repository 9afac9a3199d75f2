"""mosec: HTTP in Rust, one Python worker behind it, no broker between them."""

from __future__ import annotations

from benchmarks.servers.base import ROOT, Server

PEER = ROOT / "benchmarks" / "peers" / "mosec"


class Mosec(Server):
    """One port."""

    name = "mosec"
    dialect = "mosec"

    def prepare(self) -> list[str]:
        program = [str(self.home / "bin" / "python"), str(PEER / "server.py")]
        options = ["--address", "127.0.0.1", "--port", str(self.settings.port), "--timeout", "60000"]
        return [*program, *options, "--path", str(self.folder / "sockets")]

    def environment(self) -> dict[str, str]:
        rows, delay_ms = self.batch
        return {
            "BENCH_MODEL": self.model,
            "BENCH_BATCH": str(rows),
            "BENCH_DELAY_MS": str(delay_ms),
            "BENCH_FOLDER": str(self.model_folder),
        }

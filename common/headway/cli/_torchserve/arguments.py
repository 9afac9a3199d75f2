"""TorchServe's command line, option by option.

Knows: the options and their short forms. Must not know: what follows from them.

Read by argparse, as there: it takes options that are cut short (`--model-st`), and several values after
`--models`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headway.cli._torchserve.background import TELL

PROGRAM = "headway torchserve"


@dataclass(frozen=True)
class Arguments:
    """What was said; "" and False for what was not."""

    version: bool = False
    start: bool = False
    stop: bool = False
    ts_config: str = ""
    model_store: str = ""
    workflow_store: str = ""
    models: tuple[str, ...] = ()
    log_config: str = ""
    cpp_log_config: str = ""
    foreground: bool = False
    no_config_snapshots: bool = False
    plugins_path: str = ""
    disable_token_auth: bool = False
    enable_model_api: bool = False
    tell: int = -1  # see `background`

    @property
    def properties(self) -> dict[str, str]:
        """What it says in place of the configuration file, under the properties' names."""
        said = {
            "model_store": self.model_store,
            "workflow_store": self.workflow_store,
            "load_models": ",".join(self.models),
            "cpp_log_config": self.cpp_log_config,
            "enable_model_api": "true" if self.enable_model_api else "",
            "disable_token_authorization": "true" if self.disable_token_auth else "",
        }
        return {key: text for key, text in said.items() if text}


def parse(arguments: Sequence[str]) -> Arguments:
    """Ends the process for --help, and for what it does not know (exit code 2)."""
    found: dict[str, Any] = vars(_parser().parse_args(list(arguments)))
    found["models"] = tuple(found["models"] or ())
    said: dict[str, Any] = {key: "" if value is None else value for key, value in found.items()}
    return Arguments(**said)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Serve TorchServe's archives and clients")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-v", "--version", action="store_true", help="say which version it is")
    what.add_argument("--start", action="store_true", help="start the server; also without this word")
    what.add_argument("--stop", action="store_true", help="stop the server")
    parser.add_argument("--ts-config", metavar="FILE", help="config.properties")
    parser.add_argument("--model-store", metavar="FOLDER", help="where archives are")
    parser.add_argument("--workflow-store", metavar="FOLDER", help="where workflows are")
    parser.add_argument(
        "--models", nargs="+", metavar="[NAME=]FILE", help="archives to serve at first; all: the whole store"
    )
    parser.add_argument("--log-config", metavar="FILE", help="taken, without a meaning here (log4j)")
    parser.add_argument("--cpp-log-config", metavar="FILE", help="taken, without a meaning here")
    parser.add_argument("--foreground", action="store_true", help="stay in the foreground")
    parser.add_argument(
        "--no-config-snapshots", "--ncs", action="store_true", help="neither write nor read snapshots"
    )
    parser.add_argument("--plugins-path", "--ppath", metavar="FOLDER", help="refused: plugins are Java")
    parser.add_argument("--disable-token-auth", "--dt", action="store_true", help="ask nobody for a token")
    parser.add_argument(TELL, type=int, default=-1, help=argparse.SUPPRESS)
    parser.add_argument("--enable-model-api", action="store_true", help="let models be (un)registered")
    return parser

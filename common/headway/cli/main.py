"""The door of the command line: `headway`, or `python -m headway.cli.main`.

Knows: the commands' names and purposes. Must not know: what they need: a command's module is imported
when the command is asked for, so that `headway --version` and `--help` answer at once.
"""

from __future__ import annotations

from importlib import import_module

import click

from headway import __version__

COMMANDS = {
    "up": "serve the models of a folder on this machine",
    "torchserve": "serve TorchServe's archives and clients, by TorchServe's command line",
    "models": "show the models of a running server, and how they are",
    "infer": "send one request to a running server, without HTTP",
    "keys": "make and allow keys, for callers and workers on other hosts",
    "top": "watch models, workers and devices, live",
    "state": "print all that a running server knows",
    "describe": "show one model's versions, copies, queues and errors",
    "scale": "set how many copies a model shall have",
    "default": "set the version that requests get which name none",
    "split": "share requests out between versions, by weight",
    "register": "serve a model of the store, or one from a URL",
    "unregister": "serve a model, or a version of it, no longer",
    "rescan": "look what has changed in the model store",
    "drain": "have a worker finish what it has, and leave",
    "workers": "set how many workers a host's agent runs",
}
IN = {  # commands that share a module; others have one of their own name
    **dict.fromkeys(("scale", "default", "split", "register", "unregister", "rescan"), "orders"),
    **dict.fromkeys(("drain", "workers"), "orders"),
    **dict.fromkeys(("state", "describe"), "state"),
}
OTHERS = """\b
The parts of a server, one process each, for systemd and for several machines:
  headway-broker   batches requests by model and dispatches them to workers
  headway-worker   runs models on one device, or on a share of one
  headway-agent    starts and stops the workers of a host when the broker asks
  headway-gateway  serves HTTP in front of a broker

\b
Settings come from options, over the environment (HEADWAY_RUN_DIR, HEADWAY_BROKER_MODEL_STORE, ...),
over headway.toml or /etc/headway/headway.toml, over the defaults."""


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"headway.cli.{IN.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, cmd_name if cmd_name in IN else "command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=Commands, epilog=OTHERS, context_settings={"max_content_width": 110})
@click.version_option(__version__, message="headway %(version)s")
def main() -> None:
    """Headway: a PyTorch model server.

    \b
    headway up --model-store models        serves models/NAME/VERSION/model.toml
    headway models                         shows them
    headway infer NAME --image photo.png   asks one
    headway top                            watches all of it
    """


if __name__ == "__main__":
    main()

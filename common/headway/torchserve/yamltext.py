"""YAML that strangers wrote, as Python's values: nothing of it runs, and little of it stays little.

Knows: YAML. Must not know: what the keys mean.

A megabyte takes Python's own reader half a minute, in which all else in the process waits; the one in C needs
a second, but ends the process where lists are nested too deeply. So the depth is looked at first, which both
can do without recursion. Aliases alone cost nothing; merged (`<<`), each line of a few can make ten times as
many keys as the line before it.
"""

from __future__ import annotations

from typing import Any

from headway.errors import SettingsError

DEPTH_MAX = 100
ALIASES_MAX = 200
KEYS_MAX = 50_000  # of a mapping, with those that are merged into it


def load_yaml(content: bytes, file: str) -> Any:
    """Raises: SettingsError for what is no YAML, or too much of it."""
    try:
        import yaml  # only here: archives without such a file need none
    except ImportError:
        raise SettingsError(f"{file} cannot be read: pyyaml is not installed (pip install pyyaml)") from None
    try:
        text = content.decode()
        _check(yaml, text)
        return yaml.load(text, Loader=_loader(yaml))
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} is not UTF-8: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        raise SettingsError(f"{file} is not YAML: {error}") from None


def _check(yaml: Any, text: str) -> None:
    """Raises: ValueError for more than any configuration has."""
    depth = aliases = 0
    for event in yaml.parse(text, Loader=_base(yaml)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > DEPTH_MAX:
            raise ValueError(f"it is nested more than {DEPTH_MAX} deep")
        if aliases > ALIASES_MAX:
            raise ValueError(f"it has more than {ALIASES_MAX} aliases")


def _base(yaml: Any) -> Any:
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _loader(yaml: Any) -> Any:
    class Loader(_base(yaml)):  # type: ignore[misc]
        """The safe one, which knows no types but plain ones."""

        def flatten_mapping(self, node: Any) -> None:
            super().flatten_mapping(node)
            if len(node.value) > KEYS_MAX:
                raise ValueError(f"a mapping has more than {KEYS_MAX} keys")

    return Loader

"""Records what a real TorchServe answers, into the files of cases.

    python -m tests.torchserve.record BIN [GROUP[/CASE] …] [--check] [--new] [--first-port N]

BIN is the folder with TorchServe's `torchserve`. `--check` writes nothing and says what differs from the
recording; `--new` plays only cases that have none yet. No expectation is ever written by hand.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.torchserve.compare import differences
from tests.torchserve.play import CASES, play
from tests.torchserve.server import PORTS, Server, serving

GROUPS = sorted(path.stem for path in CASES.glob("*.json") if path.stem != "masks")


def main() -> int:
    options = parse()
    wanted = options.cases or GROUPS
    versions = versions_of(options.bin)
    groups = sorted({name.split("/")[0] for name in wanted})
    changed = [record_group(name, options, versions) for name in groups]
    return int(any(changed))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("bin", type=Path)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--new", action="store_true")
    parser.add_argument("--first-port", type=int)
    return parser.parse_args()


def versions_of(folder: Path) -> dict[str, str]:
    code = "import json, torch, ts; print(json.dumps([ts.__version__, torch.__version__]))"
    said = subprocess.run([folder / "python", "-c", code], capture_output=True, text=True, check=True)
    return dict(zip(("torchserve", "torch"), json.loads(said.stdout.strip().split("\n")[-1]), strict=True))


def record_group(name: str, options: argparse.Namespace, versions: dict[str, str]) -> bool:
    """Whether anything differs from what was recorded."""
    path = CASES / f"{name}.json"
    file = json.loads(path.read_text())
    ports = {p: options.first_port + i for i, p in enumerate(PORTS)} if options.first_port else None
    with serving([str(options.bin / "torchserve")], file["group"], ports) as server:
        found = [record_case(server, name, case, options, versions) for case in file["cases"]]
    if not options.check:
        path.write_text(written(file))
    return any(found)


def record_case(
    server: Server, group: str, case: dict[str, Any], options: argparse.Namespace, versions: dict[str, str]
) -> bool:
    name = f"{group}/{case['id']}"
    chosen = [wanted for wanted in options.cases if "/" in wanted]
    if (chosen and name not in chosen) or (options.new and "expected" in case):
        return False
    try:
        seen = play(server, case["steps"])
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}\n{server.tail()}", file=sys.stderr)
        return True
    found = said(name, case, seen)
    if not options.check:
        how = f"python -m tests.torchserve.record BIN {name}"
        today = datetime.date.today().isoformat()
        headway = {"headway": case.pop("headway")} if "headway" in case else {}
        case.pop("recorded", None)
        case |= {"expected": seen, "recorded": {**versions, "date": today, "how": how}, **headway}
    return found


def said(name: str, case: dict[str, Any], seen: list[dict[str, Any]]) -> bool:
    """Prints what differs from the recording, where there is one."""
    if "expected" not in case:
        return False
    triples = zip(case["steps"], case["expected"], seen, strict=True)
    found = [f"{name}: step {i}: {d}" for i, each in enumerate(triples) for d in differences(*each)]
    for line in found:
        print(line)
    return bool(found)


def written(file: dict[str, Any]) -> str:
    """JSON that is read and compared by people: what fits a line is on one."""
    return laid_out(file, 0) + "\n"


def laid_out(value: Any, depth: int) -> str:
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + depth <= 110 or not value or not isinstance(value, (dict, list)):
        return flat
    pad = " " * (depth + 1)
    if isinstance(value, list):
        inner = [pad + laid_out(each, depth + 1) for each in value]
    else:
        inner = [f"{pad}{json.dumps(k)}: {laid_out(v, depth + 1)}" for k, v in value.items()]
    opening, closing = "[]" if isinstance(value, list) else "{}"
    return opening + "\n" + ",\n".join(inner) + "\n" + " " * depth + closing


if __name__ == "__main__":
    sys.exit(main())

"""Where Headway is meant to answer something else than TorchServe: written into the case, with the reason.

    python -m tests.torchserve.intended WHY GROUP/CASE …    plays them against Headway and writes what came
    python -m tests.torchserve.intended --drop GROUP/CASE   it is to be as TorchServe again
    python -m tests.torchserve.intended --table             the table of docs/torchserve-differential.md

What is written is what Headway does now, right or wrong: read it before it is committed.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from tests.torchserve.play import CASES, play
from tests.torchserve.record import GROUPS, written
from tests.torchserve.replay import group_file
from tests.torchserve.server import HEADWAY, Server, serving


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("why", nargs="?")
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--drop", action="append", default=[])
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        print("\n".join(table()))
    for name in sorted({case.split("/")[0] for case in [*options.cases, *options.drop]}):
        change(name, options.why, options.cases, options.drop)
    return 0


def change(group: str, why: str, cases: list[str], drop: list[str]) -> None:
    file = group_file(group)
    for case in file["cases"]:
        if f"{group}/{case['id']}" in drop:
            case.pop("headway", None)
    chosen = [case for case in file["cases"] if f"{group}/{case['id']}" in cases]
    if chosen:
        with serving(HEADWAY, file["group"]) as server:
            for case in chosen:
                write(server, case, why)
    (CASES / f"{group}.json").write_text(written(file))


def write(server: Server, case: dict[str, Any], why: str) -> None:
    seen = play(server, case["steps"])
    if seen == case["expected"]:
        print(f"{case['id']}: it does not differ", file=sys.stderr)
        return
    case["headway"] = {"expected": json.loads(json.dumps(seen)), "why": why}


def table() -> list[str]:
    rows = [
        f"| {group}/{case['id']} | {case['headway']['why']} |"
        for group in GROUPS
        for case in group_file(group)["cases"]
        if "headway" in case
    ]
    return ["| case | how Headway differs, and why |", "| --- | --- |", *rows]


if __name__ == "__main__":
    sys.exit(main())

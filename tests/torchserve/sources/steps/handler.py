"""Adds up what each sequence says, one number a request: `N`, or `N after MILLISECONDS`."""

import time

SUMS = {}


def handle(data, context):
    if data is None:
        return None
    return [answer(row, idx, context) for idx, row in enumerate(data)]


def answer(row, idx, context):
    said = row.get("data") or row.get("body")
    if isinstance(said, (bytes, bytearray)):
        said = said.decode()
    number, _, after_ms = str(said).partition(" after ")
    time.sleep(int(after_ms or 0) / 1000)
    name = context.get_sequence_id(idx)
    starts = context.get_request_header(idx, context.header_key_sequence_start)
    if starts:
        SUMS.pop(name, None)
    SUMS[name] = SUMS.get(name, 0) + int(number)
    if context.get_request_header(idx, "x-echo"):
        context.set_response_header(idx, context.header_key_sequence_id, name)
    ends = context.get_request_header(idx, context.header_key_sequence_end)
    if context.get_request_header(idx, "x-tell"):
        return {"sequence": name, "starts": starts, "ends": ends, "sum": SUMS[name]}
    return SUMS[name]

"""The functions of the workflows: what comes first, and what comes last."""

import json


def text_of(row):
    value = row.get("data") or row.get("body")
    return value.decode() if isinstance(value, (bytes, bytearray)) else value


def clean(data, context):
    return None if data is None else [text_of(row).strip() for row in data]


def finish(data, context):
    if data is None:
        return None
    shown = {
        name: bytes(v).decode() if isinstance(v, (bytes, bytearray)) else v for name, v in data[0].items()
    }
    return [json.dumps(shown, sort_keys=True)]


def fail(data, context):
    if data is None:
        return None
    raise ValueError("this function fails")

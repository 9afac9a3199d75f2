"""Waits for as many milliseconds as the body says."""

import time


def handle(data, context):
    if data is None:
        return None
    for row in data:
        time.sleep(int(row["body"]) / 1000)
    return [f"waited for {row['body']}" for row in data]

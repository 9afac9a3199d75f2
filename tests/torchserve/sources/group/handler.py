"""Says how many requests it got at once; fails all of them when one says "fail"."""


def handle(data, context):
    if data is None:
        return None
    if any(row["body"] == "fail" for row in data):
        raise ValueError("one of them failed")
    return [{"of": len(data), "you said": row["body"]} for row in data]

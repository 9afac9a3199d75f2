"""A node: its text in capitals."""


def handle(data, context):
    if data is None:
        return None
    texts = [row.get("data") or row.get("body") for row in data]
    return [(bytes(t).decode() if isinstance(t, (bytes, bytearray)) else t).upper() for t in texts]

"""A node: how long its text is, as JSON."""


def handle(data, context):
    if data is None:
        return None
    return [{"length": len(row.get("data") or row.get("body"))} for row in data]

"""Returns one answer too many."""


def handle(data, context):
    return None if data is None else [0] * (len(data) + 1)

"""A handler whose module has a name that others have, too."""

from helper import greet


def handle(data, context):
    return None if data is None else [greet(row["body"]) for row in data]

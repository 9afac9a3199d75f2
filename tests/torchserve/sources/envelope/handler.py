"""Answers what the envelope made of the request."""


def told(value):
    if isinstance(value, (bytes, bytearray)):
        return [type(value).__name__, bytes(value).decode("utf-8", "replace")]
    return [
        type(value).__name__,
        value if isinstance(value, (str, int, float, list, dict, bool)) else repr(value),
    ]


class Envelope:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        header = context.get_request_header(0, "x-do")
        if header == "fail":
            raise ValueError("as asked")
        if header == "numbers":
            return [[0.5, 1.5]] * len(data)
        if header == "words":
            return [["a", "b"]] * len(data)
        return [{"got": told(row), "explain": context.get_request_header(0, "explain")} for row in data]

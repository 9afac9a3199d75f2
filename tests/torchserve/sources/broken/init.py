"""Fails while it is loaded."""


class Broken:
    def initialize(self, context):
        raise RuntimeError("cannot begin")

    def handle(self, data, context):
        return data

"""Raises for every request."""


class Fault:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        raise RuntimeError("it is my way")

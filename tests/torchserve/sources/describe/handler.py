"""Describes itself."""

from ts.torch_handler.base_handler import BaseHandler


class Described(BaseHandler):
    def initialize(self, context):
        self.initialized = True

    def handle(self, data, context):
        if self.is_description(data):
            return [{"data_type": "text", "labels": ["yes", "no"], "threshold": 0.5}]
        return ["a prediction"] * len(data)

    def is_description(self, data):
        return any("describe" in row for row in data)

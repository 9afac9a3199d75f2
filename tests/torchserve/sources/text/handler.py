"""A text handler on BaseHandler: counts words by the list that came with the archive."""

import json
import os

from ts.torch_handler.base_handler import BaseHandler


class Text(BaseHandler):
    def initialize(self, context):
        folder = context.system_properties["model_dir"]
        with open(os.path.join(folder, "words.json"), encoding="utf-8") as file:
            self.words = json.load(file)
        self.initialized = True

    def preprocess(self, data):
        texts = [row.get("data") or row.get("body") for row in data]
        return [t.decode() if isinstance(t, (bytes, bytearray)) else t for t in texts]

    def inference(self, data, *args, **kwargs):
        return [{word: text.lower().split().count(word) for word in self.words} for text in data]

    def postprocess(self, data):
        return data

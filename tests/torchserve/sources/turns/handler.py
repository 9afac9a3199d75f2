"""A running batch: each request asks for so many turns, and what each turn is to say or do."""

import json
import time


class Turns:
    def initialize(self, context):
        self.context = context
        context.cache = {}

    def handle(self, data, context):
        ids = list(context.request_ids.values())
        for gone in set(context.cache) - set(ids):
            del context.cache[gone]
        made = [self.turn(idx, id, data[idx], len(ids)) for idx, id in enumerate(ids)]
        time.sleep(max(context.cache[id]["asked"].get("sleep_ms", 0) for id in ids) / 1000)
        context.stopping_criteria = [self.criterion(id) for id in ids]
        if all("criteria" in context.cache[id]["asked"] for id in ids):
            context.stopping_criteria = None
        return made

    def turn(self, idx, id, row, width):
        is_new = id not in self.context.cache
        if is_new:
            body = row.get("body") or row.get("data")
            asked = body if isinstance(body, dict) else json.loads(body)
            self.context.cache[id] = {"asked": asked, "turns": 0}
        known = self.context.cache[id]
        asked, known["turns"] = known["asked"], known["turns"] + 1
        if asked.get("fail") == known["turns"]:
            raise ValueError("told to")
        if asked.get("status"):
            self.context.set_response_status(asked["status"], "told to", idx)
        if asked.get("say") == "width":
            return f"{width};"
        if asked.get("say") == "inputs":
            mark = self.context.get_request_header(idx, "X-Mark")
            return f"{'new' if is_new else 'known'} {sorted(row)} {mark};"
        if asked.get("say") == "object":
            return {"turn": known["turns"]}
        return f"turn {known['turns']};"

    def criterion(self, id):
        known = self.context.cache[id]

        def stops(result):
            if known["asked"].get("verdict") == "none":
                return None
            return known["turns"] >= known["asked"]["n"]

        return stops

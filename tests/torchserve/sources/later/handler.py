"""Coroutines: one may wait for what another does."""

import asyncio
import json

from ts.handler_utils.utils import send_intermediate_predict_response
from ts.utils.util import PredictionException

BELLS = {}


class Later:
    def initialize(self, context):
        self.initialized = True

    async def handle(self, data, context):
        body = data[0].get("body") or data[0].get("data")
        asked = body if isinstance(body, dict) else json.loads(body)
        if asked.get("wait"):
            await asyncio.wait_for(self.bell(asked["wait"]).wait(), 10)
        if asked.get("ring"):
            self.bell(asked["ring"]).set()
        for i in range(asked.get("n", 0)):
            send_intermediate_predict_response(
                [f"part {i};"], context.request_ids, "Intermediate", 200, context
            )
            await asyncio.sleep(0.01)
        if asked.get("fail"):
            raise ValueError("told to")
        if asked.get("code"):
            raise PredictionException("told to", asked["code"])
        if asked.get("status"):
            context.set_response_status(asked["status"], "told to")
        return [asked.get("say", "the end")]

    def bell(self, name):
        return BELLS.setdefault(name, asyncio.Event())

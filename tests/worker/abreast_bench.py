"""A workbench for models whose batches run beside one another: their parts without a runner or an archive.
The model is the test's; passages, replies and all else are Headway's."""

from __future__ import annotations

from typing import Any

from headway.body import Body, pack_body
from headway.messages import Batch, BatchRequest, Piece, Result
from headway.models import ModelSpec
from headway.pieces import NOBODY, STREAM, TRUE
from headway_worker.batches import Passage
from headway_worker.loaded import Loaded
from headway_worker.orders import Report, Run
from headway_worker.replies import Answer
from headway_worker.sharing import Sharing
from headway_worker.tracks import WholeTrack


class Nothing:
    """A backend of which only its name matters."""

    def load(self, spec: Any, device: Any) -> None: ...
    def infer(self, inputs: Any) -> Any: ...
    def describe(self) -> dict[str, Any]:
        return {}

    def close(self) -> None: ...


class AbreastBench:
    """Makes passages and collects what is reported."""

    def __init__(self, **keys: Any) -> None:
        spec = ModelSpec("m", "1", "/models", "own", **keys)
        self.loaded = Loaded(spec, Nothing(), WholeTrack(lambda requests: []), takes_requests=True)
        self.now = 100.0
        self.reports: list[Report] = []

    def clock(self) -> float:
        return self.now

    def passage(self, batch: int, *bodies: bytes, streams: bool = False, late_s: float = 0.0) -> Passage:
        """A prepared batch of such bodies."""
        requests = []
        for body in bodies:
            packed, options = pack_body(Body(body))
            options = {**options, STREAM: TRUE} if streams else options
            requests.append(BatchRequest(60_000, 0, options, packed))
        return self.prepared(batch, requests, late_s)

    def prepared(self, batch: int, requests: list[BatchRequest], late_s: float = 0.0) -> Passage:
        order = Run(Batch(batch, "m", "1", 60_000, requests), self.now - late_s)
        passage = Passage(self.loaded, order, self.clock, Sharing(), self.reports.append)
        passage.prepare()
        return passage

    @property
    def results(self) -> dict[int, list[Any]]:
        """Of each batch that has ended, its replies' contents: bytes, or an error's text."""
        ended = [report for report in self.reports if isinstance(report, Result)]
        assert len({result.batch for result in ended}) == len(ended), "a batch was answered twice"
        return {result.batch: [reply.content for reply in result.replies] for result in ended}

    @property
    def pieces(self) -> list[tuple[int, Any]]:
        return [
            (report.batch, report.content)
            for report in self.reports
            if isinstance(report, Piece) and report.place != NOBODY
        ]

    @property
    def signs_of_life(self) -> list[int]:
        return [r.batch for r in self.reports if isinstance(r, Piece) and r.place == NOBODY]


def text(data: bytes) -> Answer:
    return Answer(Body(data, "text/plain"))

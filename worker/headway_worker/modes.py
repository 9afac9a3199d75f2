"""In which of torch's modes the runner's thread is: for inference, or as usual where a model wants that.

Knows: torch's modes. Must not know: models, steps.

PERF: the mode stays from one batch to the next. To leave inference mode for each batch of a model that wants
gradients takes 3 us, and 50 after a pause, when torch's way there is cold.
"""

from __future__ import annotations

import torch


class Mode:
    """One thread's, while it is entered."""

    def __init__(self) -> None:
        self._inference = torch.inference_mode()
        self._usual = torch.inference_mode(False)
        self._is_usual = False

    def __enter__(self) -> None:
        self._inference.__enter__()

    def __exit__(self, *raised: object) -> None:
        self.be(usual=False)
        self._inference.__exit__(None, None, None)

    def be(self, *, usual: bool) -> None:
        """From here on."""
        if usual == self._is_usual:
            return
        self._is_usual = usual
        if usual:
            self._usual.__enter__()
        else:
            self._usual.__exit__(None, None, None)

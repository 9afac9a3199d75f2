"""The runner's thread is in torch's mode that a model wants, and afterwards in none of them."""

from __future__ import annotations

import torch

from headway_worker.modes import Mode


def seen() -> tuple[bool, bool]:
    return torch.is_inference_mode_enabled(), torch.is_grad_enabled()


def test_a_thread_is_in_inference_mode_until_a_model_wants_it_otherwise_and_again_then() -> None:
    mode = Mode()
    with mode:
        for usual in (False, True, True, False, False, True):
            mode.be(usual=usual)
            assert seen() == (not usual, usual)
    assert seen() == (False, True)


def test_what_a_model_leaves_behind_ends_with_its_mode() -> None:
    mode = Mode()
    with mode:
        mode.be(usual=True)
        torch.set_grad_enabled(False)
        mode.be(usual=False)
        mode.be(usual=True)
        assert seen() == (False, True)

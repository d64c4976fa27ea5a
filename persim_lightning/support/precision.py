"""Makes results independent of the user's default type of tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def single_precision() -> Iterator[None]:
    """Create tensors in float32, whatever `torch.set_default_dtype` says; also a decorator."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)

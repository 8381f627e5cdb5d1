"""Jacobians of functions that treat every row by itself, one backward pass for each output."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def rowwise_jacobian(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """The derivative "row out in" of `function` at `rows` "row in", whose row of outputs depends on its own row alone.

    The sum of an output over all rows then has the derivative of that output as its gradient, row by row.
    """
    with torch.inference_mode(False), torch.enable_grad():
        inputs = rows.detach().clone().requires_grad_()
        outputs = function(inputs)
        columns = range(outputs.shape[1])
        found = [torch.autograd.grad(outputs[:, out].sum(), inputs, retain_graph=True)[0] for out in columns]
    return torch.stack(found, 1)

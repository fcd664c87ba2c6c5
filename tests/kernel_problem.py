"""A random multigraph with features, and what kernel tests compare it with."""

import torch

from gnnlab import ops
from gnnlab.ops._cpu import CpuKernels
from gnnlab.ops._library import library

KERNELS = CpuKernels(library()) if library() is not None else None
ISAS = ("v2", "v3", "v4", "portable")
TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 2e-5,
    torch.bfloat16: 1e-2,
    torch.float16: 2e-3,
}


class Problem:
    """A random multigraph with features; some destinations have no edge."""

    def __init__(self, n, m, e, heads, width, dtype=torch.float64, seed=0, index=torch.int64):
        self.random = torch.Generator().manual_seed(seed)
        self.n, self.m, self.e, self.heads, self.width = n, m, e, heads, width
        self.dtype = dtype
        self.src = torch.randint(n, (e,), generator=self.random) if e else torch.zeros(0).long()
        self.dst = torch.randint(m, (e,), generator=self.random) if e else torch.zeros(0).long()
        self.plan = ops.EdgePlan(torch.stack([self.src, self.dst]).to(index), n, m)

    def draw(self, *shape):
        """Returns values that `dtype` holds exactly, so that only the kernel rounds."""
        return torch.randn(*shape, generator=self.random, dtype=torch.float64).to(self.dtype)

    def sum_to(self, end, size, values):
        return values.new_zeros(size, *values.shape[1:]).index_add(0, end, values)

    def softmax(self, scores):
        largest = scores.new_full((self.m, scores.shape[1]), -torch.inf)
        where = self.dst[:, None].expand_as(scores)
        largest = largest.scatter_reduce(0, where, scores.detach(), "amax")
        power = (scores - largest[self.dst]).exp()
        return power / self.sum_to(self.dst, self.m, power)[self.dst]

    def attend(self, values, scores, keep=1.0):
        share = (self.softmax(scores) * keep)[..., None]
        return self.sum_to(self.dst, self.m, share * values[self.src])


def close(found, expected, dtype):
    tolerance = TOLERANCE[dtype]
    scale = max(float(expected.abs().max()), 1.0) if expected.numel() else 1.0
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance * scale)

"""numpy and scipy."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch

from gnnlab.bench._machine import Call
from gnnlab.bench._setting import Case, Setting

__all__ = ["Numpy", "Scipy"]


class Numpy:
    """Has nothing but `take` for us."""

    name = "numpy"

    def __init__(self, setting: Setting) -> None:
        self.src = setting.src.numpy()

    def gather(self, case: Case) -> dict[str, Any]:
        x = case.inputs["x"].numpy()
        return {"numpy.take": Call(lambda: np.take(x, self.src, axis=0), finish=torch.from_numpy)}

    def gather_output_reused(self, case: Case) -> dict[str, Any]:
        x, out = case.inputs["x"].numpy(), case.inputs["out"].numpy()
        call = Call(
            lambda: np.take(x, self.src, axis=0, out=out, mode="clip"), finish=torch.from_numpy
        )
        return {"numpy.take(out=)": call}


class Scipy:
    """Keeps the graph as a CSR matrix."""

    name = "scipy"

    def __init__(self, setting: Setting) -> None:
        self.s = s = setting
        self.sparse: Any = importlib.import_module("scipy.sparse")
        parts = (s.col.numpy().astype(np.int32), s.indptr.numpy().astype(np.int32))
        self.matrix = self._csr(np.ones(s.e, dtype=np.float32), *parts)
        self.weighted = self._csr(s.weight[s.perm].numpy(), *parts)

    def _csr(self, values: Any, col: Any, indptr: Any) -> Any:
        return self.sparse.csr_matrix((values, col, indptr), (self.s.m, self.s.n))

    def plan_build(self, case: Case) -> dict[str, Any]:
        s = self.s
        ends, ones = (s.dst.numpy(), s.src.numpy()), np.ones(s.e, dtype=np.float32)

        def finish(matrix: Any) -> Any:  # duplicates were added up: the sums are the degrees
            return np.concatenate([[0], np.cumsum(np.asarray(matrix.sum(1)).ravel())])

        make = self.sparse.coo_matrix
        return {
            "scipy coo->csr": Call(lambda: make((ones, ends), (s.m, s.n)).tocsr(), None, finish)
        }

    def spmm_sum(self, case: Case) -> dict[str, Any]:
        return self._product(case, self.matrix)

    def spmm_weighted_sum(self, case: Case) -> dict[str, Any]:
        return self._product(case, self.weighted)

    def _product(self, case: Case, matrix: Any) -> dict[str, Any]:
        x = case.inputs["x"].numpy()
        return {"scipy": Call(lambda: matrix @ x, finish=torch.from_numpy)}

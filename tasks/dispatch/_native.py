"""The compiled simulator: structures and functions of `native/shop_api.h`."""

from __future__ import annotations

import ctypes
from typing import Any

from gnnlab.ops._library import Library, library

__all__ = [
    "GLOBAL_FEATURES",
    "GUIDE_FACTS",
    "JOB_FEATURES",
    "MACHINE_FEATURES",
    "OP_FEATURES",
    "Options",
    "Plans",
    "Row",
    "shop_library",
]

JOB_FEATURES = 39
GLOBAL_FEATURES = 24
OP_FEATURES = 16
MACHINE_FEATURES = 8
GUIDE_FACTS = 20

_P, _I, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_SIGNATURES: dict[str, list[Any]] = {
    "shop_new": [_L, _P, _P, _P, _P, _L, _P, _P, ctypes.POINTER(_P)],
    "shop_reset": [_P, _P, _L, _I],
    "shop_step": [_P, _P, _L, _P, _P, _P, _I],
    "shop_rules": [_P, _P, _L, _P, _P, _L, _P, _I],
    "shop_search": [_P, _P, _L, _P, _L, _P, _I],
    "shop_values": [_P, _P, _L, _P, _L, ctypes.c_double, _L, _P, _P, _P, _P, _I],
    "shop_guide": [_P, _P, _L, _P, _I],
    "shop_mask": [_P, _P, _L, _P],
    "shop_state": [_P, _P, _L, _P],
    "shop_schedule": [_P, _L, _P],
    "shop_copy": [_P, _L, _P, _L],
    "shop_jobs": [_P, _P, _L, _P, _P, _P, _P, _P, _I],
    "shop_graph_sizes": [_P, _P, _L, _I, _P, _I],
    "shop_graph": [_P, _P, _L, _I, _P, _P, _I],
    "shop_free": [_P],
}


class Options(ctypes.Structure):
    """`gnnlab_shop_options`."""

    _fields_ = [
        (name, ctypes.c_int32)
        for name in (
            "mode",
            "restart",
            "unload_when_down",
            "allow_wait",
            "focus",
            "auto_trivial",
            "reward",
            "repair_known",
        )
    ] + [("max_steps", ctypes.c_int64)]


class Row(ctypes.Structure):
    """`gnnlab_shop_row`."""

    _fields_ = [
        ("instance", ctypes.c_int64),
        ("wip_limit", ctypes.c_int64),
        ("scale", ctypes.c_double),
        ("trace", ctypes.c_int32),
        ("duration", ctypes.c_int32),
        ("seed", ctypes.c_uint64),
        ("prob", ctypes.c_double),
        ("low", ctypes.c_int64),
        ("high", ctypes.c_int64),
        ("windows", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("cut_after", ctypes.c_void_p),
        ("cut_duration", ctypes.c_void_p),
    ]


class Plans(ctypes.Structure):
    """`gnnlab_shop_plans`."""

    _fields_ = [
        ("cells", ctypes.c_int64),
        ("span", ctypes.c_void_p),
        ("next", ctypes.c_void_p),
        ("before", ctypes.c_void_p),
    ]


def shop_library() -> Library | None:
    """Returns gnnlab's CPU library with the simulator's functions declared, None without one."""
    found = library()
    if found is not None and not hasattr(found, "shop_step"):
        found.declare(_SIGNATURES)
    return found

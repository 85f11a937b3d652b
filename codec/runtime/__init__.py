"""Executors of a bundle behind one protocol: codec.coding.Network, plus `analyse` and `synthesise`.

Arrays are numpy float32, (1, channels, height, width): pictures in -1..1, y and z in steps, y_hat and means integers in
1/64 of a step, scale indexes and Psi integers. native is the default: cpp_ext's loops; onnx is ONNX Runtime; torch runs
on a GPU too; numpy is the slow definition of the entropy path and cannot draw pictures.
"""

import os


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

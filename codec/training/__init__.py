"""Data, optimizer, schedule, loop, checkpoints and export: the only room that knows an optimizer."""

import cpp_ext  # noqa: F401  before torch, whose OpenMP should not spin either

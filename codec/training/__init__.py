"""Data, optimizer, schedule, loop, checkpoints and export: the only room that knows an optimizer."""

"""The command line: parse, call the library, say what came out.

What is slow to import is imported by the command that needs it, so that `--help` answers at once.
"""

from __future__ import annotations

from napari_sparseseg.cli import demo, devices, evaluate, info, objects, predict, suggest, train
from napari_sparseseg.cli._app import app, main

for _module in (demo, train, predict, suggest, objects, evaluate, info, devices):  # the order in the help
    _module.register()

__all__ = ["app", "main"]

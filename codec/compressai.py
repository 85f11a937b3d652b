"""mlicv2-l and MLIC++ as models of CompressAI, for its tools and for programs written against it.

    python -m codec.compressai checkpoint FOLDER -a mlicv2-l -p CHECKPOINT.pth     # its eval_model, with its options

    from codec.compressai import register
    register()
    from compressai.zoo import image_models
    net = image_models["mlicv2-l"](quality=4)     # what its training examples call; untrained: there are no weights

Needs compressai. The networks are those of codec.models.large, and so are their files.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import torch
from torch import Tensor

from codec.models.large.model import MLIC, OPTIONS, Options

_operators = torch.library.Library("torchvision", "FRAGMENT")


def _import() -> None:
    """Import CompressAI, beside a torchvision built for another torch too, whose own kernels are not needed: it refuses
    to be imported for want of its operators; empty ones of their names make it content. Raises ImportError."""
    while True:
        try:
            import compressai.zoo  # noqa: F401

            return
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if not missing:
                raise ImportError(str(error)) from error
            _operators.define(f"{missing[1]}() -> ()")
            for module in [m for m in sys.modules if m.split(".")[0] in ("torchvision", "compressai")]:
                del sys.modules[module]


def model_class(options: Options) -> Any:
    """A CompressionModel whose constructor takes nothing: forward, compress, decompress, update, aux_loss,
    from_state_dict."""
    from compressai.models import CompressionModel

    class Network(MLIC, CompressionModel):
        __doc__ = MLIC.__doc__

        def __init__(self, chosen: Options = options):
            super().__init__(chosen)

        @classmethod
        def from_state_dict(cls, state: dict[str, Tensor], options: Options | None = options) -> MLIC:
            return super().from_state_dict(state, options)

    Network.__name__ = Network.__qualname__ = options.name
    return Network


def register() -> dict[str, Any]:
    """Put the networks into CompressAI's registry, its zoo and its table of architectures, which is returned.

    Raises ImportError without compressai.
    """
    _import()
    from compressai.registry import register_model
    from compressai.zoo import image_models
    from compressai.zoo.image import model_architectures

    for name, options in OPTIONS.items():
        if name not in model_architectures:
            model_architectures[name] = register_model(name)(model_class(options))
            image_models[name] = _factory(model_architectures[name])
    return dict(model_architectures)


def _factory(made: Any) -> Any:
    def factory(quality: int, metric: str = "mse", pretrained: bool = False, **_: Any) -> Any:
        """quality and metric choose the loss, not the network. Raises ValueError for pretrained."""
        if pretrained:
            raise ValueError(f"there are no weights of {made.__name__}: train it, or give a checkpoint")
        return made()

    return factory


if __name__ == "__main__":
    register()
    from compressai.utils.eval_model.__main__ import main

    main(sys.argv[1:])

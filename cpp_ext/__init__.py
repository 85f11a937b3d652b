"""Native code, compiled from the C++ sources beside this file: here the entropy coder; kernels are in _layers, _gemm.

An interleaved rANS coder for learned codecs. Every symbol (int16) is coded with one table of a fixed bank, chosen
by an index (uint8) that both sides know. Symbols may be put in any number of passes, and are got in the same passes:

>>> import numpy as np
>>> import cpp_ext
>>> bank = cpp_ext.TableBank(  # one table: no raw bits; ranks 0 and -1 and the escape, frequencies of sum 4096
...     np.array([0], np.uint8), np.array([3], np.uint16), np.array([3000, 1000, 96], np.uint16))
>>> encoder = cpp_ext.Encoder(bank, lanes=1)
>>> encoder.put(np.array([0, 0, -1, 7], np.int16), np.zeros(4, np.uint8))
>>> payload = encoder.finish()
>>> decoder = cpp_ext.Decoder(bank, payload, lanes=1)
>>> decoder.get(np.zeros(4, np.uint8))
array([ 0,  0, -1,  7], dtype=int16)
>>> decoder.finish()

The payload knows neither its lane count nor its number of symbols: the container does. Its layout is written down
in rans.hpp. Signatures, shapes and errors are in _native.pyi.
"""

import os

# Before OpenMP is loaded, which reads it once. Its threads would spin at every barrier: where others work on the
# machine too, a decoding by two threads took 13 s instead of 0.6 (measured); where none do, it makes no difference.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from ._native import CorruptStream, Decoder, Encoder, TableBank, choose_lanes, instruction_sets

__all__ = ["CorruptStream", "Decoder", "Encoder", "TableBank", "choose_lanes", "instruction_sets"]

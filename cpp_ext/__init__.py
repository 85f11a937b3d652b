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

# Before OpenMP is loaded, which reads them once. By default its threads spin for milliseconds at every barrier: where
# others work on the machine too, a decoding by two threads took 13 s instead of 0.6. Not at all, and torch's many small
# operators wait for each other: refinement took 0.46 s an iteration instead of 0.35. So many turns are some 20 us.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # GNU's, which looks here first

from ._native import CorruptStream, Decoder, Encoder, TableBank, choose_lanes, instruction_sets

__all__ = ["CorruptStream", "Decoder", "Encoder", "TableBank", "choose_lanes", "instruction_sets"]

"""python -m bench NAME [--json FILE] [--data DIR] [options of the suite]"""

from __future__ import annotations

import importlib
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from codec.errors import CodecError
from rate.options import Parser, one_line

from .report import write

SUITES = {
    "rd": "codecs against each other on your pictures: BD-rates, speed, a page to look at",
    "all": "the README's tables of the codec's rates, times and coder again",
    "learning": "BD-rate of bundles from different moments of training",
    "process": "seconds and memory of codec encode and codec decode as whole processes",
    "big": "seconds and memory of pictures up to 100 megapixels, and what tiles cost",
    "batch": "codec encode of a folder of many small pictures, in one process and in two",
    "coder": "speed and bytes of entropy coders: ours, CompressAI's, constriction, torchac",
    "probes": "networks of other widths and depths, trained for equal time",
    "train": "crops a second of codec train, against torch's own operators",
    "sheet": "parts of decoded pictures, enlarged, beside another codec's",
    "large": "mlicv2-l at full size: its entropy part against the way of MLIC++, files, a training step",
    "gemm": "integer matrix products against bfloat16",
    "l1norm": "L1 normalization in integers against L2 normalization",
    "quant-train": "training steps in integers against bfloat16",
    "quant-accuracy": "what training in few bits costs in accuracy",
    "ablation": "what each mechanism of MLICv2 is worth, at small width and equal budget",
    "nas-step": "a step of the search against noise and by direct rounding",
    "nas-sr": "searched networks for super-resolution, and what they have to beat",
    "nas-synthesis": "the codec's synthesis searched for half of the bit operations, and what it has to beat",
    "devices": "what a network costs on CPU and GPU and as an exported graph",
    "fpga": "our engine in Verilog: simulated on real layers, counted in cells of an FPGA, against FP16",
    "rounding": "what the integers of the entropy path cost",
}  # name of the module bench.NAME, which has add_options(parser) and run(args) -> report


def module(suite: str) -> Any:
    """Of a suite: bench.NAME."""
    return importlib.import_module(f"bench.{suite.replace('-', '_')}")


def main(arguments: list[str] | None = None) -> int:
    """Parse, run one suite, write its JSON. Exit status 1 with one line on stderr where data or a codec is missing."""
    parser = Parser(prog="python -m bench", description="Run one suite of measurements.")
    suites = parser.add_subparsers(dest="suite", required=True, metavar="NAME")
    for name, summary in SUITES.items():
        suite = suites.add_parser(name, help=summary, description=summary)
        suite.add_argument("--json", metavar="FILE", type=Path, help="write the rows here")
        suite.add_argument("--data", metavar="DIR", help="data folder [$MLIC_DATA]")
        module(name).add_options(suite)
    args = parser.parse_args(arguments)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, even where that is ignored
    try:
        result = module(args.suite).run(args)
        if args.json:
            write(args.json, result)
            print(f"wrote {args.json}", file=sys.stderr)
    except (CodecError, ImportError, OSError, ValueError) as error:
        print(f"bench {args.suite}: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"bench {args.suite}: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m fuzz`: hostile messages and files, from a seed, and what came of them. `make fuzz` calls it."""

import argparse
import asyncio
import sys
from pathlib import Path

from cospan.cli.processes.this_process import prepare_environment

prepare_environment(())

from fuzz.conversations import play  # noqa: E402
from fuzz.decoder import run_decoder  # noqa: E402
from fuzz.files import run_files  # noqa: E402
from fuzz.live_runs import run_live  # noqa: E402
from parts import Part, run_parts  # noqa: E402

PARTS = ("decoder", "files", "live")
_LIVE_SHARE, _FILES_SHARE = 10, 200
"""One live message, and one file of each kind, for this many messages through the decoder."""


def main() -> int:
    """Runs the parts; 0 where nothing was found."""
    chosen = _arguments()
    if chosen.again is not None:
        print(f"{play(chosen.again.read_bytes())} messages, and nothing came of it")
        return 0

    def parts(folder: Path, seed: int) -> dict[str, Part]:
        return {
            "decoder": lambda: run_decoder(folder / "decoder", chosen.count, seed),
            "files": lambda: run_files(folder / "files", chosen.count // _FILES_SHARE, seed),
            "live": lambda: asyncio.run(run_live(folder / "live", chosen.count // _LIVE_SHARE, seed)),
        }

    return run_parts("fuzz", chosen.seed, chosen.parts, parts)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, help="of every random choice; drawn and printed where left out")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"which of {', '.join(PARTS)}")
    parser.add_argument("--count", type=int, default=1_000_000, help="messages through the decoder; live a tenth")
    parser.add_argument("--again", type=Path, help="one input that was found")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

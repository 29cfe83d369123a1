"""`make feed-test`: two minutes of a feed, by each way that steps can come; prints what was found.

PYTHONPATH=tests python -m feeding [--ways http,unix,mqtt] [--seconds 120] [--seed 5]
"""

import argparse
import contextlib
import tempfile
from pathlib import Path

from feeding.broker import broker, free_port, program
from feeding.trial import Plan, Trial, judged

MOST_SECONDS = 5.0
"""In which an agent catches up with the loop."""


def main() -> None:
    """Runs the trials one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ways", default="http,unix,mqtt")
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--seed", type=int, default=5)
    given = parser.parse_args()
    for way in given.ways.split(","):
        plan = Plan(steps=given.seconds, per_second=1.0, per_round=5, away=given.seconds / 24, seed=given.seed)
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as beside:
            feed, target = "http://127.0.0.1:0", ""
            if way == "unix":
                feed = target = f"unix:{folder}/feed.sock"
            if way == "mqtt":
                port = free_port()
                beside.enter_context(broker(program(), Path(folder), port))
                feed = target = f"mqtt://127.0.0.1:{port}/plant/site-0"
            found = Trial(plan, Path(folder), feed, target).run()
        judged(found, plan, MOST_SECONDS)
        seconds = ", ".join(f"{each:.2f} s" for each in found.catch_up)
        print(
            f"{way}: {found.transitions} transitions of {plan.steps}, bits as without kills; caught up in {seconds}"
        )


if __name__ == "__main__":
    main()

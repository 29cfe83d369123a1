"""A learner that continues in another process."""

import subprocess
import sys
from pathlib import Path

from runs import SECONDS
from unit.client.learning.test_site_learner import ALL, FIRST, bits, learn, learner_of, spec_of

from cospan.client.files.result_file import save_result
from cospan.wire.files.npz import load_npz
from cospan.wire.files.spec_file import to_toml

IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from unit.client.learning.test_site_learner import *
from cospan.wire.files.spec_file import load_spec

folder = Path(sys.argv[1])
again = learner_of(load_spec(folder / "spec.toml"), first_round=FIRST)
assert resume(again, folder / "a.npz", run_id="run-1") == ""
learn(again, *range(FIRST, ALL))
save_result(folder / "b.npz", again, run_id="run-1")
"""


def test_another_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    spec = spec_of("queues")
    (tmp_path / "spec.toml").write_text(to_toml(spec), encoding="utf-8")
    first, whole = learner_of(spec), learner_of(spec)
    learn(first, *range(FIRST))
    save_result(tmp_path / "a.npz", first, run_id="run-1")
    paths = [str(Path(__file__).parents[1])]
    subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path), *paths], check=True, timeout=SECONDS)
    learn(whole, *range(ALL))
    found = load_npz(tmp_path / "b.npz", "a test")
    assert {name: (array.dtype, array.shape, array.tobytes()) for name, array in found.items()} == bits(whole)

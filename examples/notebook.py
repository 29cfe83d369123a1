"""A fleet as in a notebook, cell by cell: learn, look, go on, keep what was learnt, ask it.

    python examples/notebook.py

No network and no command line; `# %%` begins a cell for editors that know cells.
"""

# %% A fleet of queues, none of which knows the others' customers
import tempfile
from pathlib import Path

import numpy as np

from cospan.client import ValueFunction
from cospan.simulation import Fleet

fleet = Fleet("queues", agents=12, rounds=120, seed=1)

# %% Some rounds at a time: is it still getting better?
for _ in range(4):
    result = fleet.step(rounds=25)
    print(f"round {fleet.rounds_done:3}: value error {result.value_error:.4f}, alone {result.lstd_alone_error:.4f}")

# %% The rest
result = fleet.run()
print(result)

# %% Which queue earns most, and what is a free server worth to it when a customer of priority 4 comes?
best = max(result.agents, key=lambda agent: agent.gain)
states = np.array([4 * free + 2 for free in range(11)])
print(f"{best.agent_id} ({best.label}) earns {best.gain:.3f} a step")
print("values of 0 to 10 free servers:", best.values(states).round(2))

# %% Keep it; a controller can ask it without a network, and without the fleet
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "queue.npz"
    best.save(path)
    kept = ValueFunction.load(path)
print(kept)
assert kept.values(states).tolist() == best.values(states).tolist()

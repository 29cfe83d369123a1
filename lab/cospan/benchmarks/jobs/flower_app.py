"""The job as a Flower app, for its deployment engine and its simulation engine alike: `server` and `client`.

The folder that is run with `flwr run` has a pyproject.toml that names them, and the run's configuration.
"""

import time

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from jaxtyping import Float

from cospan.benchmarks.jobs.gradient_exchange import first_basis, gradient_of, next_basis
from cospan.benchmarks.jobs.pace import follow

server = ServerApp()
client = ClientApp()


@server.main()
def serve(grid: Grid, context: Context) -> None:
    """Runs rounds with all nodes until the benchmark closes the connection."""
    settings = context.run_config
    agents, shape = int(settings["agents"]), (int(settings["feature-dim"]), int(settings["rank"]))
    basis = first_basis(*shape)
    while len(nodes := list(grid.get_node_ids())) < agents:
        time.sleep(0.2)

    def run(rounds: int) -> Float[np.ndarray, "d r"]:
        nonlocal basis
        for _ in range(rounds):
            content = RecordDict({"basis": ArrayRecord([basis])})
            messages = [Message(content, node, MessageType.TRAIN) for node in nodes]
            replies = list(grid.send_and_receive(messages))
            gradients = [reply.content["gradient"].to_numpy_ndarrays()[0] for reply in replies]
            basis = next_basis(basis, np.sum(gradients, axis=0), len(gradients))
        return basis

    follow(str(settings["address"]), run)


@client.train()
def train(message: Message, context: Context) -> Message:
    """An agent's gradient, at the basis that came."""
    basis = message.content["basis"].to_numpy_ndarrays()[0]
    gradient = gradient_of(int(context.node_config["partition-id"]), *basis.shape)
    return Message(RecordDict({"gradient": ArrayRecord([gradient])}), reply_to=message)

"""Where the steps of `cospan agent --feed` come from: standard input, HTTP, a Unix socket, an MQTT broker.

Each is a thread that tells the agent's feed (`cospan.client.feeds`) what it receives, and acknowledges a step when
it is durable. Begin with `opening`.
"""

"""What a coordinator owes its agents, written a second time and without its machine; all events are held to it."""

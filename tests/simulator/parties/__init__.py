"""What takes part in a simulated run: processes with clocks of their own, their network, and the disk."""

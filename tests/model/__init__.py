"""Every order of events of a tiny run: an exhaustive search over the machines that ship (docs/model.md)."""

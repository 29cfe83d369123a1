"""A relay in the search: its machine and its session, which ship, and what can happen to them."""

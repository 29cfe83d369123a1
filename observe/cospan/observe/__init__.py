"""What is seen of a run from outside: the dashboard, and the report of a finished run."""

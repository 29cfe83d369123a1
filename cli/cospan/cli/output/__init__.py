"""What people read: tables, progress, summary, log lines, plots.

Files of a run are in `cospan.cli.run_folder`. Begin with `summary`.
"""

"""Files: atomic writes, and bounded reads of files of unknown origin.

The formats of an agent's and a run's own files are in `cospan.client.files` and `cospan.server.storage`. Begin with
`safe_files`.
"""

"""Commands that make files for users of their own: a folder for a new fleet, and scored logs.

Begin with `new_fleet`; the files of a new folder are in `templates`, as they are but for their names.
"""

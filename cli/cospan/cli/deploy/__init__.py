"""`cospan deploy`: the files with which an engine runs a fleet, for people to review, commit and apply.

`plan` says what is to run, `containers`, `hosts` and `kubernetes` make the files of their engines from `templates`,
and `chart` is the Helm chart; `commands` has the options. Begin with `plan`.
"""

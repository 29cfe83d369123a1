"""Protobuf to domain values and back, with every range checked on the way in.

`messages` has the conversation of agents and coordinator, `reports` what operators read, `error_status` the errors;
`fast_path` decodes the usual gradient without protobuf. Begin with `messages`.
"""

"""Secure sums, the part that needs no keys: the vector of a round in fixed point, and who adds masks with whom.

`layout` and `fixed_point` map a contribution to 64-bit words and back; `membership` and `graph` say whose masks
cancel; `announcement` is what all members of a round have to agree on. Keys and masks: `cospan.wire.secure_sums`.
"""

"""Secure sums in the coordinator's machine: which sessions make an epoch, and when a round is void.

An epoch is as long as its members stay the same. It is formed when a round opens, so a process that joins takes
part from the next round on. The vectors of a round mean nothing unless all are there, and no member may send a
second one for it (docs/adr/0034). So a round that loses a member before its vector came is *void*: it closes
without contributors, and leaves the basis as it is.
"""

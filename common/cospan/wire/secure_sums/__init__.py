"""Secure sums, the part with keys: pair keys, masks, and proofs of whose a key is.

`masker` is what an agent's process uses; all cryptography is of the package `cryptography` (`cospan[tls]`). The
protocol and what it protects: docs/security/secure-sums.md.
"""

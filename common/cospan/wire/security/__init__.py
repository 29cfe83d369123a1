"""Certificates and the identities that they prove.

`tls` loads and reloads the files, `certificate` reads the names from DER, `identity` says what each name may do,
and `authority` issues certificates for development. Where peers are checked is `cospan.server.admission.auth`.
Begin with `identity`.
"""

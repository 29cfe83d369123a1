"""Control by actor-critics with a shared trunk: environments and learning in JAX, averaging over the real stream.

The extra `cospan[deep]` installs what it needs. Begin with `fleet`; how weights travel as a basis is in
`cospan.core.linalg.parameter_chart`.
"""

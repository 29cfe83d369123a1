"""How sure an agent is of its values: the answers that its posterior mixes, and the covariance of the mixture.

`mixture` has the answers of all ψ (docs/adr/0023), `value_covariance` what intervals of values are made of
(docs/adr/0024), `variance_model` the noise of an agent's moments. The moments and the posterior are in
`cospan.core.learning.posterior`.
"""

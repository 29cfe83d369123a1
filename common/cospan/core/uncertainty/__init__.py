"""How sure an agent is of its values: the answers that its posterior mixes, and the covariance of the mixture.

`mixture` has the answers of all ψ (docs/adr/0023), `value_covariance` what intervals of values are made of
(docs/adr/0024). The agent's moments and its posterior are in `cospan.core.learning.posterior`.
"""

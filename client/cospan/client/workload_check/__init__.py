"""`check`: whether a workload keeps its promises, found before a run rather than in it.

Begin with `check`; what it finds are the objects of `findings`. Sites are played with their own policies by `play`;
`chain_checks` judges environments and policies, `feature_checks` the feature map.
"""

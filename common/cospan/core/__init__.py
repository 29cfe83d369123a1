"""The mathematics of Cospan: numpy and the standard library, no network, no files, no clock.

Source of the method: Wang, Yang and Su, "Personalized Multi-Agent Average Reward TD-Learning via Joint Linear
Approximation", arXiv:2603.02426 (2026). Equation numbers in this package are that paper's.
"""

"""Single cases of equivariance, and the bound on heads that binds: names contain "equivariant"."""

import math
from dataclasses import replace

import numpy as np
import pytest

from cospan.client.group_learner import GroupLearner, GroupSites
from cospan.client.loading import load_workload, make_site
from cospan.client.site_learner import SiteLearner
from cospan.client.specifying import specify
from cospan.core.aggregation import next_basis
from cospan.core.fleets import JointFleet
from cospan.core.learner import LearnerState, Trajectory, learn_round
from cospan.core.matrices import FactoredMatrix
from cospan.core.method import PRESETS, Method, compact, paper, practical
from cospan.core.subspace import principal_angle_sine, random_basis
from cospan.core.targets import differential_value, relative_value_error
from cospan.core.units import NO_UNITS, Units, bound_note, reaches_bound, told_after

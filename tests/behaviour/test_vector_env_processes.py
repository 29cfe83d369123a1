"""Vector environments whose parts are in processes of their own."""

from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from runs import coin
from unit.client.environment.test_vector_env import INDICES, Poles, alone, pole, same_data, together

from cospan.client import Site, vector_sites


def test_environments_in_other_processes() -> None:
    env = AsyncVectorEnv([pole] * len(INDICES), autoreset_mode=AutoresetMode.SAME_STEP, context="spawn")
    try:
        group = together(vector_sites(env, Poles(), coin))
        same_data(group, alone([Site(pole(), Poles(), coin) for _ in INDICES]), 80)
        assert group.saved() is None, "what is in another process cannot be asked"
    finally:
        env.close()

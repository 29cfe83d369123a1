"""What is completed."""

from behaviour.command import ROOT

from cospan.cli.interface import completion
from cospan.cli.interface.setting_options import LEARNING_RULE
from cospan.cli.settings.layers import Settings
from cospan.client.workloads import BUILT_IN


def test_what_is_completed_is_what_there_is() -> None:
    assert set(completion.WORKLOADS) == set(BUILT_IN)
    options = {option.name: option for option in LEARNING_RULE}
    assert set(options["aggregation"].values) == {"mean", "clipped", "trimmed", "geometric-median"}
    for name in ("preset", "head_update", "aggregation"):
        described = Settings.model_fields[name].description or ""
        assert set(described.replace(" or ", ", ").split(", ")) == set(options[name].values)
    toml = {path.stem for path in (ROOT / "lab/cospan/experiments/specs").glob("*.toml")}
    assert set(completion.experiments("")) == toml
    assert completion.run_folders("nowhere/x") == []

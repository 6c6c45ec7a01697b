"""Settings: where they may come from, which wins, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.settings import SettingsError, load


def test_flags_win_over_variables_and_variables_over_the_file(tmp_path: Path) -> None:
    """The nearer to the command, the stronger; defaults come last."""
    file = tmp_path / "config.toml"
    file.write_text('port = 1\nshards = 5\npolicy = "a"\npolicy_wait = true\n')
    settings = load({"port": 3, "policy_wait": None}, {"TREERING_PORT": "2", "TREERING_POLICY": "b"}, file)
    assert (settings.port, settings.shards, settings.policy, settings.policy_wait) == (3, 5, Path("b"), True)
    assert load({}, {}, None).policy is None


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"TREERING_POLICIES": "x"}, "there is no setting 'policies'"),
        ({"TREERING_POLICY_WAIT": "perhaps", "TREERING_POLICY": "p"}, "policy_wait cannot be 'perhaps'"),
        ({"TREERING_POLICY_WAIT": "true"}, "there is no policy to wait for"),
        ({"TREERING_SHARDS": "0"}, "shards: 1 to 64"),
        ({"TREERING_PORT": "x"}, "port cannot be 'x'"),
        ({"TREERING_ORIGIN": "class 7"}, "origin: not a key name"),
        ({"TREERING_ORIGIN": "a+b"}, "origin: not a key name"),
        ({"TREERING_ORIGIN": ""}, "origin: not a key name"),
        ({"TREERING_ORIGIN": "\udcff"}, "origin: not a key name"),
    ],
)
def test_what_is_not_possible_is_refused(environment: dict[str, str], complaint: str) -> None:
    """A typing error never leaves a default in force; the message says where to look."""
    with pytest.raises(SettingsError, match=complaint):
        load({}, environment, None)

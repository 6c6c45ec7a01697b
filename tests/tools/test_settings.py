"""Settings: where they may come from, which wins, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_origin, get_type_hints

import pytest

from tools.serve import module_names
from tools.settings import Limits, Settings, SettingsError, load


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
        ({"TREERING_SPARE_WORKERS": "-1"}, "spare_workers: 0 to 16"),
        ({"TREERING_SPARE_WORKERS": "17"}, "spare_workers: 0 to 16"),
        ({"TREERING_PORT": "x"}, "port cannot be 'x'"),
        ({"TREERING_MEMORY_MB": "5"}, "memory_mb is at least 64"),
        ({"TREERING_SECONDS_PER_EVENT": "0"}, "seconds_per_event is 0.1 to 3600"),
        ({"TREERING_SECONDS_PER_EVENT": "nan"}, "seconds_per_event is 0.1 to 3600"),
        ({"TREERING_SHARDS": "2.7"}, "shards cannot be '2.7'"),
        ({"TREERING_MEMORY_MB": "99999999999999999999"}, "memory_mb is at most 16,777,216"),
        ({"TREERING_MEMORY_MB": "inf"}, "memory_mb cannot be 'inf'"),
        ({"TREERING_MODULE": "essay"}, "module cannot be 'essay'"),
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


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("memory_mb = inf", "memory_mb cannot be inf"),
        ("memory_mb = nan", "memory_mb cannot be nan"),
        ("memory_mb = 99999999999999999999", "memory_mb is at most 16,777,216"),
        ("shards = 2.7", "shards cannot be 2.7"),
        ("shards = 2.0", "shards cannot be 2.0"),
        ("shards = true", "shards cannot be True"),
        ("spare_workers = true", "spare_workers cannot be True"),
        ("port = false", "port cannot be False"),
        ("seconds_per_event = true", "seconds_per_event cannot be True"),
        (f"seconds_per_event = 1{400 * '0'}", "seconds_per_event cannot be 1000"),
    ],
)
def test_a_number_in_the_file_is_taken_as_it_stands_or_refused(
    tmp_path: Path, line: str, complaint: str
) -> None:
    """Nothing is rounded, true is no number, and what is no limit at all never reaches a worker, which would end."""
    file = tmp_path / "config.toml"
    file.write_text(line + "\n")
    with pytest.raises(SettingsError, match=complaint):
        load({}, {}, file)


# --- modules -------------------------------------------------------------------------------------


def test_a_module_has_its_own_limits_and_those_of_all(tmp_path: Path) -> None:
    """What its table does not say is as for all; a module without a table needs no configuration."""
    file = tmp_path / "config.toml"
    file.write_text('memory_mb = 500\n[module.essay]\nisolation = "own"\nseconds_per_event = 2\n')
    settings = load({}, {"TREERING_SECONDS_PER_EVENT": "3"}, file)
    assert settings.limits("essay") == Limits("own", 500, 2.0)
    assert settings.limits("other") == Limits("shared", 500, 3.0)
    assert load({}, {}, None).digest() != settings.digest()


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ('isolation = "alone"', r"\[module.essay\]: isolation is one of shared, own, cell, not 'alone'"),
        ("memory = 5", r"\[module.essay\]: there is no setting 'memory'"),
        ("memory_mb = 5", r"\[module.essay\]: memory_mb is at least 64"),
        ('memory_mb = "much"', r"\[module.essay\]: memory_mb cannot be 'much'"),
        ("seconds_per_event = 0.0", r"\[module.essay\]: seconds_per_event is 0.1 to 3600"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path: Path, table: str, complaint: str) -> None:
    """A typing error never leaves a module with less protection than its operator believes."""
    file = tmp_path / "config.toml"
    file.write_text(f"[module.essay]\n{table}\n")
    with pytest.raises(SettingsError, match=complaint):
        load({}, {}, file)


@pytest.mark.parametrize("text", ['[modules.essay]\nisolation = "cell"', "modules = [1]", "page_hosts = 5"])
def test_a_list_of_names_is_nothing_else(tmp_path: Path, text: str) -> None:
    """The names of tables are no list: `modules` for `module` would run one module alone, and unconfined."""
    file = tmp_path / "treering.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match="cannot be") as refused:
        load({}, {}, file)
    assert ("[module.NAME]" in str(refused.value)) == ("essay" in text)


def test_a_table_of_a_module_that_is_not_installed_is_refused() -> None:
    """Its name may be a typing error, too; only the server knows what is installed."""
    settings = Settings(module=(("esay", Limits("cell")),))
    with pytest.raises(SettingsError, match=r"\[module.esay\]: there is no such module; installed are"):
        module_names(settings)
    assert module_names(Settings(modules=("writing",))) == ["writing"]


TYPES = get_type_hints(Settings)
SAMPLES: dict[Any, tuple[str, Any]] = {
    str: ('"memory"', "memory"),
    str | None: ('"example.org/x"', "example.org/x"),
    int: ("3", 3),
    float: ("2.5", 2.5),
    bool: ("true", True),
    Path: ('"there"', Path("there")),
    Path | None: ('"there"', Path("there")),
    tuple[str, ...]: ('["a", "b"]', ("a", "b")),
    tuple[tuple[str, Limits], ...]: ("{ essay = { isolation = 'own' } }", (("essay", Limits("own")),)),
}
"""A value of each type, as TOML and as it is read."""
SOME = {
    "host": ('"localhost"', "localhost"),
    "memory_mb": ("100", 100),
    "redis_url": ('"redis://a"', "redis://a"),
}
"""Where not every value of the type is possible."""


@pytest.mark.parametrize("name", TYPES)
def test_a_setting_keeps_its_type(name: str, tmp_path: Path) -> None:
    """Promise: whoever adds a setting, of whatever type, is not given a text for it: by default, nor from a file."""
    file, (text, value) = tmp_path / "server.toml", SOME.get(name, SAMPLES[TYPES[name]])
    policy = '\npolicy = "there"' if name == "policy_wait" else ""
    file.write_text(f"{name} = {text}{policy}\n")
    found = getattr(load({}, {}, file), name)
    assert (found, type(found)) == (value, type(value))
    assert load({}, {}, None) == Settings()
    default = getattr(Settings(), name)
    assert default is None or isinstance(default, get_origin(TYPES[name]) or TYPES[name])

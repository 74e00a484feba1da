"""Configs that are read from files: any value of another kind is refused, whatever the field."""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from splat_recon import PoseConfig, TrainConfig, mcmc_config

BAD: list[Any] = [math.nan, math.inf, -math.inf, 10**400, "x", [], [[]], -1e300]


def paths(values: Any, before: tuple = ()) -> Iterator[tuple]:
    if isinstance(values, dict):
        for name, value in values.items():
            yield from paths(value, (*before, name))
    if before:
        yield before


def changed(values: dict, path: tuple, value: Any) -> dict:
    copy = json.loads(json.dumps(values))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return copy


@pytest.mark.parametrize("config", [TrainConfig(), TrainConfig(strategy=mcmc_config(9).strategy, pose=PoseConfig())])
def test_every_setting_of_a_training_is_checked(config: TrainConfig):
    values = config.to_dict()
    assert TrainConfig.from_dict(json.loads(json.dumps(values))) == config
    for path in paths(values):
        for bad in BAD:
            with pytest.raises(ValueError, match=r"."):
                TrainConfig.from_dict(changed(values, path, bad))

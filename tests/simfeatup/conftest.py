from __future__ import annotations

import pytest
import torch

from simfeatup.weight_files import read_state_dict


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    """A state dict that looks like a small CLIP."""
    torch.manual_seed(0)
    return {'visual.weight': torch.randn(4, 3), 'visual.bias': torch.randn(4), 'logit_scale': torch.tensor(2.0)}


def check(path, expected, anchors=('visual.',)) -> None:
    """The file holds these weights."""
    found = read_state_dict(path, anchors)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
        assert not isinstance(found[name], torch.nn.Parameter)

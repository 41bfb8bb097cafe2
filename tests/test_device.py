import pytest
import torch

from segearth.device import choose_device
from segearth.errors import ConfigError


def test_the_named_device_or_the_best():
    assert choose_device('cpu') == choose_device(torch.device('cpu')) == torch.device('cpu')
    assert choose_device().type in ('cpu', 'cuda')


@pytest.mark.parametrize('name', ['foo', 'cuda:99', 'meta:x', ['cpu']])
def test_devices_that_are_not_there(name):
    with pytest.raises(ConfigError, match='cannot be used here'):
        choose_device(name)

import torch

from segearth.inference import sliding_window
from segearth.inference.sliding_window import MAX_WINDOWS, free_memory, window_batch_size

CPU = torch.device('cpu')


def test_as_many_as_the_memory_holds(monkeypatch):
    sizes = []
    for free in (0, 10**9, 10**10, 10**14):
        monkeypatch.setattr(sliding_window, 'free_memory', lambda device, free=free: free)
        sizes.append(window_batch_size(CPU, (448, 448), 9, 512))
    assert sizes[0] == 1 and sizes == sorted(sizes) and sizes[-1] == MAX_WINDOWS['cpu']


def test_free_memory_of_the_machine():
    assert free_memory(CPU) > 0

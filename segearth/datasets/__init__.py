"""Data sets and loading steps, registered with mmseg under the original's names."""

from segearth.datasets import demo, sets, transforms  # noqa: F401 - they register

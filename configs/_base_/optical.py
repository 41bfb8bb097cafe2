# Optical images at 448 pixels, windows of 224.
_base_ = '../base_config.py'

# This project's loaders read every kind of raster and check the labels (segearth/datasets/transforms).
test_pipeline = [
    dict(type='LoadOpticalImage'),
    dict(type='Resize', scale=(448, 448), keep_ratio=True),
    dict(type='LoadSegLabel'),  # behind Resize: labels keep their size, and the result is brought to it
    dict(type='PackSegInputs'),
]
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(pipeline=test_pipeline),
)

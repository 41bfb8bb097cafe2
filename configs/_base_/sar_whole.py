# Radar images at 224 pixels, each seen at once.
_base_ = './sar.py'

model = dict(slide_crop=0)

test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='Resize', scale=(224, 224), keep_ratio=True),
    *_base_.test_pipeline[2:],
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

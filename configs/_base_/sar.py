# Radar images at 448 pixels, windows of 224, with the aligned encoder.
_base_ = './optical.py'

model = dict(clip_type='AlignEarth', model_type='SCLIP', ssa_last_n_layers=2)

test_pipeline = [dict(type='LoadSARImage'), *_base_.test_pipeline[1:]]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

# CLIP ViT-L/14: 2, 4, 8 and then 14 times the grid. One view's memory at a time.
_base_ = './clip_vitb16.py'

model = dict(
    encoder=dict(clip_type='CLIP', vit_type='ViT-L/14'),
    features='readout',
    recipe=dict(with_checkpointing=True),
)

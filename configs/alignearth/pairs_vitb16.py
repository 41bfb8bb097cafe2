# CLIP ViT-B/16 to SAR on pairs of two folders; the result loads with clip_type='AlignEarth', clip_path=.../last.pt.
_base_ = '../_base_/training.py'

custom_imports = dict(imports=['segearth.training', 'segearth.alignearth'], allow_failed_imports=False)
model = dict(
    type='AlignEarthModel',
    teacher=dict(clip_type='CLIP', vit_type='ViT-B/16', attention='SCLIP', num_readout_blocks=2),
    student=dict(attention='SCLIP', num_readout_blocks=2),  # what the SAR configs run
    loss_weights=dict(global_cosine=1.0, dense=1.0),
    radius=1,  # cells: tolerates a shift of 16 pixels
    activation='gelu',  # of the record AlignEarth, whatever the teacher had
    size=224,
)
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='StepSampler'),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='PairDataset',
        optical=f'{_base_.data_folder}/pairs/optical',
        sar=f'{_base_.data_folder}/pairs/sar',
        size=224,
    ),
)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=20_000)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=500, end=20_000, T_max=19_500),
]

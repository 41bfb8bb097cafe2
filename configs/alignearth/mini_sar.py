# Mini to its SAR partner on real pairs at 10 m: Sentinel-1/-2, and SEN1-2, whose optical images are grey.
# tools/list_mini_pairs.py writes the list.
_base_ = './pairs_vitb16.py'

model = dict(
    teacher=dict(_delete_=True, clip_type='Mini', attention='SegEarth'),
    student=dict(attention='SegEarth', num_readout_blocks=1),
    radius=1,  # cells of 8 pixels: images are up to 2 pixels off and 34 days apart
    activation=None,  # the teacher's: the record MiniSAR has the same
    size=128,
)
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        type='PairDataset',
        pairs=f'{_base_.data_folder}/mini_pairs/train.csv',
        size=128,
        augmentation=dict(looks=None),  # the images have their own speckle
    ),
)
train_cfg = dict(max_iters=500)
optim_wrapper = dict(optimizer=dict(lr=5e-4, weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=500, T_max=450),
]

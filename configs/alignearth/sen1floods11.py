# The demo encoder on Sen1Floods11 tiles (Sentinel-1 VV and VH, Sentinel-2), both kinds of file below one folder.
_base_ = './pairs_vitb16.py'

model = dict(
    teacher=dict(_delete_=True, clip_type='Demo', attention='SegEarth'),
    student=dict(attention='SegEarth', num_readout_blocks=1),
    activation=None,
)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        type='PairDataset',
        optical=f'{_base_.data_folder}/sen1floods11',
        sar=f'{_base_.data_folder}/sen1floods11',
        optical_ending='_S2Hand',
        sar_ending='_S1Hand',
        optical_bands=(4, 3, 2),
        size=224,
    ),
)
train_cfg = dict(max_iters=200)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=200)]

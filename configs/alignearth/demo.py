# The demo encoder to its SAR partner on generated pairs: minutes on two cores.
_base_ = './pairs_vitb16.py'

custom_imports = dict(imports=['segearth.training', 'segearth.alignearth', 'segearth.alignearth.generated'])

model = dict(
    teacher=dict(_delete_=True, clip_type='Demo', attention='SegEarth'),
    student=dict(attention='SegEarth', num_readout_blocks=1),
    radius=0,
    activation=None,  # the teacher's: the record DemoSAR has the same
)
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        type='DemoPairs',
        folder='work_dirs/demo_training/pairs',
        num_scenes=128,
        size=224,
        augmentation=dict(max_shift=4),
    ),
)
train_cfg = dict(max_iters=800)
optim_wrapper = dict(optimizer=dict(lr=5e-4, weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=20, end=800, T_max=780),
]

# The demo encoder on generated scenes: minutes on two cores.
_base_ = '../_base_/training.py'

custom_imports = dict(imports=['segearth.training', 'segearth.training.generated'])

model = dict(
    type='SimFeatUpModel',
    encoder=dict(clip_type='Demo', attention='SegEarth'),
    upsampler=dict(name='jbu_one', with_dropout=False),
    features='readout',
    size=112,  # the weights serve any size; four times the steps of 224 in the same time
    recipe=dict(num_jitters=2, projection_dim=0, reconstruction_weight=0.1),
)
train_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='StepSampler'),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='DemoScenes', folder='work_dirs/demo_training/scenes', num_scenes=64, size=112, zooms=(1,)),
)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=300)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='NAdam', lr=2e-4),  # fresh weights need 4e-3
)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=300, T_max=300)]
custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(type='Checkpoints', interval=100, keep=10),
    dict(type='Calibration', num_images=8),
    dict(type='StartAsFilter', num_images=16, sigma_range=0.1),
    dict(type='ClipFirstSteps', num_steps=10, max_norm=1e-4),
]

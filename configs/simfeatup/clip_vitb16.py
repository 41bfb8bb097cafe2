# SimFeatUp as released: CLIP ViT-B/16, input of the last block, Million-AID test images, batch 4 on each of 2 GPUs.
_base_ = '../_base_/training.py'

model = dict(
    type='SimFeatUpModel',
    encoder=dict(clip_type='CLIP', vit_type='ViT-B/16'),
    upsampler=dict(name='jbu_one'),
    features='last_block_input',  # 'readout' is what inference upsamples
    size=224,
    recipe=dict(num_jitters=5, projection_dim=30, reconstruction_weight=0.1),
    precision='fp32',
)
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='StepSampler'),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ImageFolder', root=f'{_base_.data_folder}/million-aid/test', size=224),
)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=10_000)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='NAdam', lr=1e-3), accumulative_counts=1)
custom_hooks = [*_base_.custom_hooks, dict(type='ClipFirstSteps', num_steps=10, max_norm=1e-4)]

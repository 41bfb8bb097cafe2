# What every training shares; run by segearth.training.engine.
default_scope = 'mmengine'
custom_imports = dict(imports=['segearth.training'], allow_failed_imports=False)

data_folder = '{{$SEGEARTH_DATA:data}}'  # folder of all data sets; change it by the environment variable

default_hooks = dict(
    runtime_info=dict(type='RuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sampler_seed=None,  # StepSampler has no epochs
    checkpoint=None,  # Checkpoints continues exactly
)
custom_hooks = [
    dict(type='SeedSteps', seed=0),
    dict(type='Monitor', interval=10),
    dict(type='Pictures', interval=500),
    dict(type='Checkpoints', interval=500, keep=2),
]
env_cfg = dict(dist_cfg=dict(timeout=1800))  # seconds until waiting processes give up
randomness = dict(seed=0)
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False

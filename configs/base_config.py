# What all configs share: the model with the paper's settings, and how a test is run.
# It has no base of its own, so a config of the original (`_base_ = './base_config.py'`) runs beside a copy of it.
default_scope = 'mmseg'
custom_imports = dict(imports=['segearth.register', 'segearth.evaluation.metric'], allow_failed_imports=False)

data_folder = '{{$SEGEARTH_DATA:data}}'  # folder of all data sets; change it by the environment variable

model = dict(
    type='SegEarthSegmentation',
    clip_type='CLIP',
    vit_type='ViT-B/16',
    model_type='SegEarth',
    ignore_residual=True,
    prob_thd=0.0,
    logit_scale=50,
    slide_stride=112,
    slide_crop=224,
    cls_token_lambda=-0.3,
    bg_idx=0,
    ssa_last_n_layers=1,
    feature_up=True,
    feature_up_cfg=dict(
        model_name='jbu_one',
        model_path='simfeatup_dev/weights/xclip_jbu_one_million_aid.ckpt',  # found by its name in weights/
    ),
)

test_cfg = dict(type='TestLoop')
test_evaluator = dict(type='ClassIoUMetric', iou_metrics=['mIoU'])  # mmseg's IoUMetric with exact counts

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(timeout=1800),  # seconds until waiting processes give up; eval.py chooses the backend
)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10, log_metric_by_epoch=False),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # mmengine adds these two unless told not to; nothing is trained here
    checkpoint=None,
    param_scheduler=None,
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends)
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False

# The embedded encoder of real images on small sets of real tiles; its window, and no Global Bias Alleviation.
_base_ = './optical.py'

samples = '{{$SEGEARTH_SAMPLES:../shared/samples}}'  # folder of the tiles; change it by the environment variable

model = dict(clip_type='Mini', vit_type=None, slide_crop=128, slide_stride=64, cls_token_lambda=0.0)

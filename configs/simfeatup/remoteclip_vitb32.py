# RemoteCLIP ViT-B/32: five doublings from 7 x 7 tokens.
_base_ = './clip_vitb16.py'

model = dict(encoder=dict(clip_type='RemoteCLIP', vit_type='ViT-B/32'), features='readout')

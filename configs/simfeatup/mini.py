# Mini on the images of AID (any folder of images serves): an hour on two cores.
_base_ = './demo.py'

custom_imports = dict(imports=['segearth.training'])
model = dict(encoder=dict(clip_type='Mini'), size=128)
train_dataloader = dict(
    dataset=dict(_delete_=True, type='ImageFolder', root=f'{_base_.data_folder}/AID', size=128),
)

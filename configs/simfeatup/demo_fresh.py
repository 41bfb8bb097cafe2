# The demo upsampler from fresh weights and with dropout, as SimFeatUp is released: the control of demo.py.
_base_ = './demo.py'

model = dict(upsampler=dict(with_dropout=True))
optim_wrapper = dict(optimizer=dict(lr=4e-3))
custom_hooks = [hook for hook in _base_.custom_hooks if hook['type'] != 'StartAsFilter']

# Radar images at 448 pixels, windows of 224, with the aligned encoder.
_base_ = './optical.py'

image_loader = 'LoadSARImage'  # what eval.py puts in the place of LoadImageFromFile
model = dict(clip_type='AlignEarth', model_type='SCLIP', ssa_last_n_layers=2)

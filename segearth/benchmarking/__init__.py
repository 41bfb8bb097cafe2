"""Where the time goes: stages of an image's segmentation, measured."""

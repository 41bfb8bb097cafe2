"""Preparing data sets: from what their authors publish to the folders that the configs name, without torch or mmseg."""

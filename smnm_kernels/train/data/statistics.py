"""Means and standard deviations of public datasets, by which inputs are normalised."""

# RGB in [0, 1] over ImageNet: VideoMAE and MAE.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Log-mel over AudioSet: AudioMAE, whose input is (x - mean) / (2 std).
AUDIOSET_MEAN = -4.2677393
AUDIOSET_STD = 4.5689974

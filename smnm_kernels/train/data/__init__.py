"""From files on disk to batches of tensors. A kind of data is one file here: see modality.py."""

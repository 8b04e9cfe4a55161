"""The vision transformer, the objective it is pretrained with, and the files it goes into."""

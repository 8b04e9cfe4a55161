"""What can be read from frozen encoders: their features, and the probes that are fitted to them."""

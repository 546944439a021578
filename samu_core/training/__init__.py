"""Training SAMU: packed data, the synthetic generator, the trainer. Not installed into Slicer."""

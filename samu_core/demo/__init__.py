"""`samu demo`: clicks through the real pipeline on a phantom made on the spot, or on any given volume."""

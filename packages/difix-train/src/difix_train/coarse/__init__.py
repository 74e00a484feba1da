"""Training of a small network's UNet on images averaged over 8 x 8 pixels, as the embedded weights were made."""

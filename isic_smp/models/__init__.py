"""Networks: truncated MobileNet encoders, the up-convolution decoder, encoder weights. Imports nothing of the project but errors."""

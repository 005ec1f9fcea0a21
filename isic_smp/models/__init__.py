"""Networks: truncated MobileNet encoders, the up-convolution decoder, encoder weights."""

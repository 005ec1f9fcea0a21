"""The page of `python -m isic_smp.demo`: what is computed, how it is said, and the Gradio page around it."""

"""From a trained model to masks: prediction at any image size, and model files without pickle."""

"""From a recipe and pixel arrays to a trained model. Knows nothing of MLflow or Optuna."""

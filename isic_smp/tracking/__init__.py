"""MLflow: run logs, pictures, the model registry."""

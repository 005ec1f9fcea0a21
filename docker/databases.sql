-- Run once by the PostgreSQL image on an empty volume. MLflow and Optuna each keep a table alembic_version,
-- so each has a database of its own.
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_auth;
CREATE DATABASE study;

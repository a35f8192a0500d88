"""Run folders mirrored in MLflow: written first, sent second. Import from `mhc_lab.tracking.mlflow`."""

"""Training and serving configurations, one schema per format."""

"""Targets that mlx-lm runs. Its modules are the only ones that import mlx and mlx_lm."""

"""Predictors that read a number off the residual stream: which unit they use, if any."""

"""Target models: one Protocol, one adapter a back end, one embedded model."""

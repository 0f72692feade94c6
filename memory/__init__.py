"""The notebook of findings, its ledger and its pages."""

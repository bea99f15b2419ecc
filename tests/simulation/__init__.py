"""The workers' own code over a simulated log, store and disk, with a crash at every effect."""

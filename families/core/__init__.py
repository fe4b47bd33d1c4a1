"""The mechanism behind all adapters: models, attention, initialisation and weights."""

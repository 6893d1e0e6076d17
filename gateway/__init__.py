"""The doors: where instances and people come in. Knows `record`; does not know that a worker exists."""

"""The clinical record: what the gateway and the worker both know. Imports neither of them."""

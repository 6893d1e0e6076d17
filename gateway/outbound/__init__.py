"""What leaves the house: every call that we make to somebody else's server."""

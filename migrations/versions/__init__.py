"""One file per migration, in one line."""

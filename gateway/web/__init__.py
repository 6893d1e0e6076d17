"""The web door: the JSON API for machines and the pages for people."""

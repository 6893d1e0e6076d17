"""The reading room: turns a study into a draft.

Knows engines, protocols and pictures. Does not know how studies arrive or how reports leave. Importing this package
imports no torch: whatever needs it is imported where it is used.
"""

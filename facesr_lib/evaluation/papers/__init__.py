"""The rows of the papers' tables, one file a paper."""

"""The papers' tables and claims, measured here."""

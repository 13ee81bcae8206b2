"""The versions of the schema, never edited after release."""

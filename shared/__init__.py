"""What two or more processes agree on: vocabulary, and the one gateway to each store.

A module belongs here only if two of api, worker and dispatcher need it, and it is either vocabulary
or the single way to a store. `tests/architecture` checks the first half.
"""

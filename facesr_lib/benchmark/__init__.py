"""How fast the library is on this machine.

Each measurement takes ``device`` ("cpu", "cuda" or "auto") and ``quick`` (fewer repetitions) and returns rows of words
for `Table.of`: ``print(Table.of(search.run(quick=True)))``. Most rows hold the time that the same convolutions take
alone, as a share of the whole, with the lowest and highest of the repetitions.
"""

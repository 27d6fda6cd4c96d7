"""Face super-resolution, step by step: the library behind the book.

Floors, top first; imports point downwards only: ``cli`` · ``restoration``, ``benchmark``, ``book``, ``plots``,
``widgets`` · ``search`` · ``losses``, ``metrics``, ``prior`` · ``networks``, ``degrade``, ``data``, ``assets`` ·
``images``.
"""

__version__ = "0.1.0"

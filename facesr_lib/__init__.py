"""Face super-resolution, step by step: the library behind the book.

Floors, top first; imports point downwards only (tests/test_repository.py reads this list):

- ``__main__`` ``cli``
- ``publishing``
- ``evaluation``
- ``benchmark``
- ``restoration``
- ``plots`` ``widgets`` ``chapter``
- ``training``
- ``search``
- ``prior``
- ``losses``
- ``metrics``
- ``data``
- ``networks``
- ``degrade``
- ``assets``
- ``images`` ``colours`` ``randomness`` ``files`` ``devices`` ``messages`` ``tables``
"""

__version__ = "0.1.0"

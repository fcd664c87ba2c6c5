"""x"""

__all__ = ["write_page"]


def write_page(a, b):
    """x"""

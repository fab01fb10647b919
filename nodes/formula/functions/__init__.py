"""The functions of formulas, one file per kind of value; importing this package fills the table."""

from nodes.formula.functions import dates, kinds, lists, numbers, records, texts

__all__ = ["dates", "kinds", "lists", "numbers", "records", "texts"]

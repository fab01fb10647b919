"""All tables, so that nobody who needs them together has to know their files."""

from sqlmodel import SQLModel

from storage import blueprint, document, journal, run, version

metadata = SQLModel.metadata

__all__ = ["blueprint", "document", "journal", "metadata", "run", "version"]

"""The report of a study: one page of HTML, its figures, tables and sentences."""

"""Studies: tables of runs, what is measured on each, and what follows from it."""

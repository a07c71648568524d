"""Figures, laid-out tables, and the rows of the study's tables that they show."""

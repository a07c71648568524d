"""Objectives: one module, with one of TRL's trainers, per family of losses."""

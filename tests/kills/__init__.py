"""Runs that are killed, at named points and by chance: points (where), site (a run, its killing, what must hold afterwards)."""

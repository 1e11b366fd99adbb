"""Importing what another tool trained."""

"""Workflows: recipes, and flat lists of the stages that they give."""

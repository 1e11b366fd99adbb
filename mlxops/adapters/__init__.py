"""Adapter folders of any program: read, recognised and judged."""

"""Requests of operators, for `/ui` and `/admin`: who may make them, and how they are served."""
